import t from 'tap';
import * as k from '../../src/kvm/constants.js';
import { adaptCpuid } from '../../src/kvm/cpuid.js';
import { KvmError } from '../../src/kvm/errors.js';
import { Kvm } from '../../src/kvm/kvm.js';
import { microGuest } from '../support/micro-guest.js';

function open(test: { teardown(end: () => void): unknown }): Kvm {
  const kvm = Kvm.open();
  test.teardown(() => kvm.close());
  return kvm;
}

t.test('what this project builds on is there', async (t) => {
  const kvm = open(t);
  for (const [name, capability] of Object.entries({
    irqchip: k.KVM_CAP_IRQCHIP,
    'user memory': k.KVM_CAP_USER_MEMORY,
    PIT: k.KVM_CAP_PIT2,
    irqfd: k.KVM_CAP_IRQFD,
    ioeventfd: k.KVM_CAP_IOEVENTFD,
    'immediate exit': k.KVM_CAP_IMMEDIATE_EXIT,
    'MP state': k.KVM_CAP_MP_STATE,
    CPUID: k.KVM_CAP_EXT_CPUID,
  })) {
    t.ok(kvm.checkExtension(capability) > 0, name);
  }
  t.ok(kvm.checkExtension(k.KVM_CAP_NR_MEMSLOTS) >= 32);
  t.equal(kvm.checkExtension(0x7fffffff), 0, 'an unknown capability is absent');
  t.ok(kvm.vcpuMmapSize >= 4096);
});

t.test('a path that is not there names the remedy', async (t) => {
  t.throws(() => Kvm.open('/nonexistent/kvm'), {
    name: 'KvmError',
    ioctl: 'open',
    code: 'ENOENT',
    errno: 2,
    message: /there is no \/nonexistent\/kvm.*kvm_intel/,
  });
});

t.test('a device that is not KVM says so by the first call', async (t) => {
  t.throws(() => Kvm.open('/dev/null'), { name: 'KvmError', ioctl: 'KVM_GET_API_VERSION', code: 'ENOTTY' });
});

t.test('no descriptor is left by a failed open', async (t) => {
  const { readdirSync } = await import('node:fs');
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 10; i++) {
    t.throws(() => Kvm.open('/dev/null'));
  }
  t.equal(readdirSync('/proc/self/fd').length, before);
});

t.test('closed objects refuse every call by name, and close twice', async (t) => {
  const g = microGuest(t, { mode: 'real', code: 'hlt' });
  g.expect('hlt');
  g.close();
  g.close();
  t.throws(() => g.kvm.createVm(), { name: 'KvmError', ioctl: 'KVM_CREATE_VM', message: /closed/ });
  t.throws(() => g.vm.createIrqchip(), {
    name: 'KvmError',
    ioctl: 'KVM_CREATE_IRQCHIP',
    message: /the VM is closed/,
  });
  t.throws(() => g.vcpu.getRegs(), {
    name: 'KvmError',
    ioctl: 'KVM_GET_REGS',
    message: /the vCPU is closed/,
  });
  t.throws(() => g.vcpu.run(), KvmError);
  t.throws(() => g.memory.readU8(0), /closed/);
});

t.test('views of a vCPU page are empty after it closes', async (t) => {
  const g = microGuest(t, { mode: 'real', code: 'in $1, %al\nhlt' });
  const { data } = g.expect('io');
  t.equal(data.length, 1);
  g.vcpu.close();
  t.equal(data.length, 0);
});

t.test('errors of the kernel carry the call and errno', async (t) => {
  const g = microGuest(t, { mode: 'real', code: 'hlt', irqchip: true });
  t.throws(() => g.vm.createVcpu(0), { ioctl: 'KVM_CREATE_VCPU', code: 'EEXIST', errno: 17 });
  t.throws(() => g.vm.createVcpu(1 << 20), { ioctl: 'KVM_CREATE_VCPU', code: 'EINVAL', errno: 22 });
  t.throws(() => g.vm.createIrqchip(), { ioctl: 'KVM_CREATE_IRQCHIP', code: 'EEXIST' });
  t.throws(() => g.vm.enableCap(0x7fffffff), { ioctl: 'KVM_ENABLE_CAP', code: 'EINVAL' });
  t.throws(() => g.vcpu.interrupt(0x20), { ioctl: 'KVM_INTERRUPT', code: 'ENXIO' });
});

t.test('a machine has a PIT only once it was made', async (t) => {
  const { vm } = microGuest(t, { mode: 'real', code: 'hlt' });
  t.throws(() => vm.getPit2(), { ioctl: 'KVM_GET_PIT2', code: 'ENXIO' });
});

t.test('lists of MSRs', async (t) => {
  const kvm = open(t);
  const list = kvm.msrIndexList();
  t.ok(list.length > 10);
  t.equal(new Set(list).size, list.length);
  t.ok(list.includes(k.MSR_IA32_TSC));
  const features = kvm.featureMsrs();
  t.equal(kvm.getFeatureMsrs(features).length, features.length);
  t.throws(() => kvm.getFeatureMsrs([0x12345678]), { ioctl: 'KVM_GET_MSRS', message: /0x12345678/ });
});

t.test('the supported CPUID, adapted for the third of four vCPUs, is taken by KVM', async (t) => {
  const kvm = open(t);
  const cpuid = kvm.supportedCpuid();
  t.ok(cpuid.count > 10);
  t.ok((cpuid.get(0x80000000, 'eax') ?? 0) >= 0x80000008);
  const vm = kvm.createVm();
  t.teardown(() => vm.close());
  vm.createIrqchip();
  for (let id = 0; id < 4; id++) {
    const vcpu = vm.createVcpu(id);
    t.teardown(() => vcpu.close());
    adaptCpuid(cpuid, { apicId: id, vcpus: 4, tscDeadline: true });
    vcpu.setCpuid2(cpuid);
    const set = vcpu.getCpuid2();
    t.ok(set.count > 10 && set.count <= cpuid.count, 'KVM may leave out what it does not virtualise');
    t.equal((set.get(1, 'ebx') ?? 0) >>> 24, id);
    t.equal(((set.get(1, 'ebx') ?? 0) >>> 16) & 0xff, 4);
    t.ok((set.get(1, 'ecx') ?? 0) & (1 << 31), 'hypervisor');
    t.ok((set.get(1, 'ecx') ?? 0) & (1 << 24), 'TSC deadline timer');
  }
});

t.test('the guest sees the CPUID it was given', async (t) => {
  // Where guests run unprivileged, CPUID is not intercepted there; in ring 0 it always is.
  const g = microGuest(t, { mode: 'long', code: 'mov $0x40000000, %eax\ncpuid\nhlt' });
  g.expect('hlt');
  const { rbx, rcx, rdx } = g.vcpu.getRegs();
  const signature = Buffer.alloc(12);
  [rbx, rcx, rdx].forEach((register, i) => {
    signature.writeUInt32LE(Number(register & 0xffffffffn), i * 4);
  });
  t.equal(signature.toString('latin1'), 'KVMKVMKVM\0\0\0');
});
