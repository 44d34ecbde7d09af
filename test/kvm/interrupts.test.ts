import t from 'tap';
import * as k from '../../src/kvm/constants.js';
import type { IoapicState } from '../../src/kvm/registers.js';
import { EventFd } from '../support/eventfd.js';
import { type MicroGuest, microGuest } from '../support/micro-guest.js';

// Real mode: the 8259s start at vector 0x20, only line 4 is let through. The handler counts and reports on port 0x10.
const pic = `
    mov $0x11, %al
    out %al, $0x20
    mov $0x20, %al
    out %al, $0x21
    mov $0x04, %al
    out %al, $0x21
    mov $0x01, %al
    out %al, $0x21
    mov $0xef, %al
    out %al, $0x21
    out %al, $0x11
    sti
  idle:
    hlt
    jmp idle
  handler:
    incb count
    mov count, %al
    out %al, $0x10
    mov $0x20, %al
    out %al, $0x20
    iret
  count: .byte 0`;

function picGuest(test: { teardown(end: () => void): unknown }): MicroGuest {
  const g = microGuest(test, { mode: 'real', irqchip: true, code: pic });
  g.setVector(0x24, 'handler');
  return g;
}

// Long mode: the 8259 (where each line leads too) is masked, the local APIC is on, line 5 of the I/O APIC is vector
// 0x45. Before it waits it says so on port 0x11. The handler ends the interrupt before it reports.
const apic = `
    mov $0xff, %al
    out %al, $0x21
    mov $0xfee00000, %ebx
    movl $0x1ff, 0xf0(%rbx)
    mov $0xfec00000, %ecx
    movl $0x1b, (%rcx)
    movl $0, 0x10(%rcx)
    movl $0x1a, (%rcx)
    movl $TRIGGER, 0x10(%rcx)
    out %al, $0x11
    sti
  idle:
    hlt
    jmp idle
  handler:
    incb count(%rip)
    movl $0, 0xb0(%rbx)
    mov count(%rip), %al
    out %al, $0x10
    iretq
  count: .byte 0`;

function apicGuest(test: { teardown(end: () => void): unknown }, trigger: number): MicroGuest {
  const code = apic.replace('TRIGGER', `0x${(trigger | 0x45).toString(16)}`);
  const g = microGuest(test, { mode: 'long', irqchip: true, code });
  g.setVector(0x45, 'handler');
  return g;
}

const edge = 0;
const level = 1 << 15;

t.test('a line raised and lowered runs the handler, once each time', async (t) => {
  const g = picGuest(t);
  t.equal(g.expect('io').port, 0x11);
  for (let n = 1; n <= 3; n++) {
    g.vm.irqLine(4, true);
    g.vm.irqLine(4, false);
    const exit = g.expect('io');
    t.equal(exit.port, 0x10);
    t.equal(exit.data[0], n);
  }
});

t.test('an irqfd runs the handler through the 8259', async (t) => {
  const g = picGuest(t);
  const event = new EventFd(t);
  g.vm.assignIrqfd(event.fd, 4);
  t.equal(g.expect('io').port, 0x11);
  for (let n = 1; n <= 5; n++) {
    event.signal();
    t.equal(g.expect('io').data[0], n);
  }
  t.equal(event.take(), 0, 'KVM took the signals');
});

t.test('an irqfd runs the handler through the I/O APIC and the local APIC', async (t) => {
  const g = apicGuest(t, edge);
  const event = new EventFd(t);
  g.vm.assignIrqfd(event.fd, 5);
  t.equal(g.expect('io').port, 0x11);
  for (let n = 1; n <= 5; n++) {
    event.signal();
    const exit = g.expect('io');
    t.equal(exit.port, 0x10);
    t.equal(exit.data[0], n);
  }
  g.vm.deassignIrqfd(event.fd, 5);
  event.signal();
  t.equal(event.take(), 1, 'once taken off, the signal stays in the eventfd');
});

t.test('a level-triggered irqfd is lowered by the end of interrupt, which resamples', async (t) => {
  const g = apicGuest(t, level);
  const event = new EventFd(t);
  const resample = new EventFd(t);
  g.vm.assignIrqfd(event.fd, 5, resample.fd);
  t.equal(g.expect('io').port, 0x11);
  for (let n = 1; n <= 3; n++) {
    t.equal(resample.take(), 0, 'nothing to acknowledge');
    event.signal();
    t.equal(g.expect('io').data[0], n);
    t.equal(resample.take(), 1);
  }
});

t.test('a message reaches the local APIC', async (t) => {
  const g = apicGuest(t, edge);
  t.equal(g.expect('io').port, 0x11);
  t.equal(g.vm.signalMsi({ address: 0xfee00000n, data: 0x45 }), true);
  t.equal(g.expect('io').data[0], 1);
});

t.test('a GSI is routed to a message or to another pin', async (t) => {
  const g = apicGuest(t, edge);
  const [message, pin] = [new EventFd(t), new EventFd(t)];
  g.vm.setGsiRouting([
    { gsi: 40, msi: { address: 0xfee00000n, data: 0x45 } },
    { gsi: 41, chip: k.KVM_IRQCHIP_IOAPIC, pin: 5 },
  ]);
  g.vm.assignIrqfd(message.fd, 40);
  g.vm.assignIrqfd(pin.fd, 41);
  t.equal(g.expect('io').port, 0x11);
  message.signal();
  t.equal(g.expect('io').data[0], 1);
  pin.signal();
  t.equal(g.expect('io').data[0], 2);
});

t.test('an irqfd of a bad descriptor or twice is refused', async (t) => {
  const { vm } = microGuest(t, { mode: 'real', irqchip: true, code: 'hlt' });
  const event = new EventFd(t);
  t.throws(() => vm.assignIrqfd(-1, 4), { ioctl: 'KVM_IRQFD', code: 'EBADF' });
  t.throws(() => vm.assignIrqfd(0x7fffffff, 4), { ioctl: 'KVM_IRQFD', code: 'EBADF' });
  vm.assignIrqfd(event.fd, 4);
  t.throws(() => vm.assignIrqfd(event.fd, 4), { ioctl: 'KVM_IRQFD', code: 'EBUSY' });
});

t.test('a non-maskable interrupt comes through with interrupts off', async (t) => {
  const g = microGuest(t, {
    mode: 'long',
    irqchip: true,
    code: 'out %al, $1\nidle: hlt\njmp idle\nhandler: out %al, $2\nhlt',
  });
  g.setVector(2, 'handler');
  t.equal(g.expect('io').port, 1);
  g.vcpu.nmi();
  t.equal(g.expect('io').port, 2);
});

t.test('without a kernel irqchip, an interrupt is queued by hand', async (t) => {
  const g = microGuest(t, { mode: 'real', code: 'sti\nnop\nout %al, $1\nhlt\nhandler: out %al, $2\nhlt' });
  g.setVector(0x30, 'handler');
  t.equal(g.expect('io').port, 1);
  g.vcpu.interrupt(0x30);
  t.equal(g.expect('io').port, 2);
});

t.test('the PIT of the kernel ticks through line 0', async (t) => {
  const g = microGuest(t, {
    mode: 'real',
    irqchip: true,
    code: pic
      .replace('mov $0xef, %al', 'mov $0xfe, %al')
      .replace('sti', 'mov $0x34, %al\nout %al, $0x43\nmov $0x10, %al\nout %al, $0x40\nout %al, $0x40\nsti'),
  });
  g.setVector(0x20, 'handler');
  t.equal(g.expect('io').port, 0x11);
  for (let n = 1; n <= 3; n++) {
    t.equal(g.expect('io').data[0], n);
  }
});

t.test('state of the interrupt controllers: what the guest set, and round trips', async (t) => {
  const g = picGuest(t);
  g.expect('io');
  const master = g.vm.getIrqchip(k.KVM_IRQCHIP_PIC_MASTER);
  t.match(master, { irq_base: 0x20, imr: 0xef });
  for (const chip of [k.KVM_IRQCHIP_PIC_MASTER, k.KVM_IRQCHIP_PIC_SLAVE] as const) {
    const state = g.vm.getIrqchip(chip);
    g.vm.setIrqchip(chip, state);
    t.strictSame(g.vm.getIrqchip(chip), state);
  }
  const ioapic: IoapicState = g.vm.getIrqchip(k.KVM_IRQCHIP_IOAPIC);
  t.equal(ioapic.base_address, 0xfec00000n);
  t.equal(ioapic.redirtbl.length, 24);
  ioapic.redirtbl[7] = 0x0300_0000_0000_0047n;
  g.vm.setIrqchip(k.KVM_IRQCHIP_IOAPIC, ioapic);
  t.strictSame(g.vm.getIrqchip(k.KVM_IRQCHIP_IOAPIC), ioapic);
});

t.test('state of the PIT and of kvm-clock', async (t) => {
  const { vm, vcpu } = microGuest(t, { mode: 'real', irqchip: true, code: 'hlt' });
  const pit = vm.getPit2();
  pit.channels[2]!.count = 0x1234;
  pit.channels[2]!.mode = 2;
  vm.setPit2(pit);
  const back = vm.getPit2();
  t.match(back.channels[2], { count: 0x1234, mode: 2 });
  t.match(back.channels[0], { count: pit.channels[0]!.count });

  const hour = 3_600_000_000_000n;
  vm.setClock({ clock: hour, flags: 0, realtime: 0n, host_tsc: 0n });
  t.ok(vm.getClock().clock >= hour, 'it goes on from what was set');
  t.ok(vm.getClock().clock < 2n * hour);
  t.throws(
    () => vcpu.kvmclockCtrl(),
    { ioctl: 'KVM_KVMCLOCK_CTRL', code: 'EINVAL' },
    'the guest has no clock',
  );
});
