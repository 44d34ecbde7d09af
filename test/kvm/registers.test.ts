import t from 'tap';
import * as k from '../../src/kvm/constants.js';
import type { Vcpu } from '../../src/kvm/vcpu.js';
import { microGuest } from '../support/micro-guest.js';

const halt = { mode: 'real', code: 'hlt' } as const;

/** What get gives is taken back by set and given again by get. */
function roundTrip<T>(
  test: { strictSame(a: unknown, b: unknown): unknown },
  get: () => T,
  set: (value: T) => void,
): T {
  const first = get();
  set(first);
  test.strictSame(get(), first);
  return first;
}

t.test('general purpose registers: every one has its own place', async (t) => {
  const { vcpu } = microGuest(t, halt);
  const names = Object.keys(vcpu.getRegs()) as (keyof ReturnType<Vcpu['getRegs']>)[];
  t.equal(names.length, 18);
  const values = Object.fromEntries(names.map((name, i) => [name, 0x1111_0000_0000n + BigInt(i)]));
  vcpu.setRegs({ ...values, rip: 0x1000n, rflags: 0x246n });
  t.strictSame(vcpu.getRegs(), { ...values, rip: 0x1000n, rflags: 0x246n });
  roundTrip(
    t,
    () => vcpu.getRegs(),
    (regs) => vcpu.setRegs(regs),
  );
});

t.test('the guest computes with the registers it was given', async (t) => {
  const g = microGuest(t, { mode: 'long', code: 'add %rbx, %rax\nxor %r15, %rax\nhlt' });
  g.vcpu.setRegs({ ...g.vcpu.getRegs(), rax: 0x1_0000_0001n, rbx: 0x2_0000_0002n, r15: 0xffn });
  g.expect('hlt');
  t.equal(g.vcpu.getRegs().rax, 0x3_0000_00fcn);
});

t.test('special registers', async (t) => {
  for (const mode of ['real', 'protected', 'long'] as const) {
    const { vcpu } = microGuest(t, { mode, code: 'hlt' });
    const sregs = roundTrip(
      t,
      () => vcpu.getSregs(),
      (state) => vcpu.setSregs(state),
    );
    t.equal((sregs.cr0 & 1n) === 1n, mode !== 'real', mode);
    t.equal((sregs.efer & 0x400n) !== 0n, mode === 'long', mode);
    sregs.cr2 = 0x123456789an;
    sregs.fs.base = 0x4321n;
    vcpu.setSregs(sregs);
    t.match(vcpu.getSregs(), { cr2: 0x123456789an, fs: { base: 0x4321n } });
  }
});

t.test('special registers with PDPTEs', async (t) => {
  const { kvm, vcpu } = microGuest(t, halt);
  if (kvm.checkExtension(k.KVM_CAP_SREGS2) === 0) {
    t.throws(() => vcpu.getSregs2(), { name: 'KvmError', ioctl: 'KVM_GET_SREGS2' });
    return;
  }
  const sregs = roundTrip(
    t,
    () => vcpu.getSregs2(),
    (state) => vcpu.setSregs2(state),
  );
  const { flags: _, pdptrs, ...common } = sregs;
  t.equal(pdptrs.length, 4);
  t.match(vcpu.getSregs(), common);
});

t.test('a state that no processor can have is refused with the name of the call', async (t) => {
  const { vcpu } = microGuest(t, halt);
  const sregs = vcpu.getSregs();
  sregs.cr0 = 0x80000000n; // paging without protection
  t.throws(() => vcpu.setSregs(sregs), { name: 'KvmError', ioctl: 'KVM_SET_SREGS', code: 'EINVAL' });
});

t.test('x87 and SSE', async (t) => {
  const { vcpu } = microGuest(t, halt);
  const fpu = vcpu.getFpu();
  t.equal(fpu.fpr.length, 8);
  fpu.fcw = 0x27f;
  fpu.xmm = fpu.xmm.map((_, i) => new Uint8Array(16).fill(i + 1));
  vcpu.setFpu(fpu);
  t.strictSame(vcpu.getFpu(), fpu);
});

t.test('XSAVE area and extended control registers', async (t) => {
  const { kvm, vm, vcpu } = microGuest(t, halt);
  t.ok(kvm.checkExtension(k.KVM_CAP_XSAVE));
  roundTrip(
    t,
    () => vcpu.getXsave(),
    (area) => vcpu.setXsave(area),
  );
  const size = vm.checkExtension(k.KVM_CAP_XSAVE2);
  if (size > 0) {
    t.ok(size >= 4096);
    t.equal(vcpu.getXsave2(size).length, size);
  }
  const xcrs = roundTrip(
    t,
    () => vcpu.getXcrs(),
    (state) => vcpu.setXcrs(state),
  );
  t.match(xcrs[0], { xcr: 0 });
  t.equal((xcrs[0]?.value ?? 0n) & 1n, 1n, 'x87 is always on in XCR0');
});

t.test('debug registers', async (t) => {
  const { vcpu } = microGuest(t, halt);
  const state = vcpu.getDebugregs();
  state.db = [0x1000n, 0x2000n, 0x3000n, 0x4000n];
  vcpu.setDebugregs(state);
  t.strictSame(vcpu.getDebugregs(), state);
});

t.test('events: what is pending survives', async (t) => {
  const { vcpu } = microGuest(t, { ...halt, irqchip: true });
  roundTrip(
    t,
    () => vcpu.getVcpuEvents(),
    (events) => vcpu.setVcpuEvents(events),
  );
  const events = vcpu.getVcpuEvents();
  events.nmi.masked = 1;
  vcpu.setVcpuEvents(events);
  t.equal(vcpu.getVcpuEvents().nmi.masked, 1);
});

t.test('local APIC', async (t) => {
  const { vcpu } = microGuest(t, { ...halt, irqchip: true });
  const lapic = roundTrip(
    t,
    () => vcpu.getLapic(),
    (state) => vcpu.setLapic(state),
  );
  t.equal(lapic.getUint32(0x20, true) >>> 24, 0, 'APIC id of vCPU 0');
  const lint0 = 0x350;
  lapic.setUint32(lint0, 0x700, true);
  vcpu.setLapic(lapic);
  t.equal(vcpu.getLapic().getUint32(lint0, true), 0x700);
});

t.test('run state: the first vCPU runs, the second waits for its INIT', async (t) => {
  const { vm, vcpu } = microGuest(t, { ...halt, irqchip: true });
  const second = vm.createVcpu(1);
  t.teardown(() => second.close());
  t.equal(vcpu.mpState, k.KVM_MP_STATE_RUNNABLE);
  t.equal(second.mpState, k.KVM_MP_STATE_UNINITIALIZED);
  second.mpState = k.KVM_MP_STATE_HALTED;
  t.equal(second.mpState, k.KVM_MP_STATE_HALTED);
});

t.test('time stamp counter rate', async (t) => {
  const { vcpu } = microGuest(t, halt);
  const rate = vcpu.tscKhz;
  t.ok(rate > 0);
  vcpu.tscKhz = rate;
  t.equal(vcpu.tscKhz, rate);
});

t.test('translation follows the page tables', async (t) => {
  const { vcpu, memory } = microGuest(t, { mode: 'long', code: 'hlt' });
  // Present, writable, 2 MiB: linear 2 to 4 MiB leads to physical 0.
  memory.writeU64(0xb000 + 8, 0x83n);
  t.match(vcpu.translate(0x201234n), { valid: 1, physical_address: 0x1234n });
  t.match(vcpu.translate(0x1_0000_0000n), { valid: 0 });
});

t.test('model-specific registers are read and written in order', async (t) => {
  const { kvm, vcpu } = microGuest(t, { mode: 'long', code: 'hlt' });
  const list = kvm.msrIndexList();
  t.ok(list.includes(k.MSR_STAR));
  const wanted = [
    { index: k.MSR_STAR, data: 0x0013_0008_0000_0000n },
    { index: k.MSR_LSTAR, data: 0xffff_8000_0000_1234n },
    { index: k.MSR_KERNEL_GS_BASE, data: 0x5678n },
  ];
  vcpu.setMsrs(wanted);
  t.strictSame(vcpu.getMsrs(wanted.map((msr) => msr.index)), wanted);
  t.strictSame(vcpu.getMsrs([]), []);
});

t.test('a refused MSR is named', async (t) => {
  const { vcpu } = microGuest(t, halt);
  const bad = 0x12345678;
  t.throws(() => vcpu.getMsrs([k.MSR_STAR, bad, k.MSR_LSTAR]), {
    name: 'KvmError',
    ioctl: 'KVM_GET_MSRS',
    message: /MSR 0x12345678/,
  });
  t.throws(() => vcpu.setMsrs([{ index: bad, data: 0n }]), {
    ioctl: 'KVM_SET_MSRS',
    message: /MSR 0x12345678/,
  });
});

t.test('CPUID is what was set, adapted', async (t) => {
  const g = microGuest(t, { mode: 'long', code: 'hlt' });
  const cpuid = g.kvm.supportedCpuid();
  const second = g.vm.createVcpu(1);
  t.teardown(() => second.close());
  cpuid.put({ function: 0x40000010, index: 0, flags: 0, eax: 0x1234, ebx: 0, ecx: 0, edx: 0 });
  second.setCpuid2(cpuid);
  const back = second.getCpuid2();
  t.ok(back.count > 10 && back.count <= cpuid.count, 'KVM may leave out what it does not virtualise');
  t.equal(back.get(0x40000010, 'eax'), 0x1234);
  t.equal(back.get(0, 'ebx'), cpuid.get(0, 'ebx'), 'the vendor');
});
