import t from 'tap';
import { KVM_INTERNAL_ERROR_EMULATION } from '../../src/kvm/constants.js';
import { type Mode, microGuest } from '../support/micro-guest.js';

const modes: Mode[] = ['real', 'protected', 'long'];

for (const mode of modes) {
  t.test(`${mode} mode: port output of all sizes, then hlt`, async (t) => {
    const g = microGuest(t, {
      mode,
      code: `
        mov $0x11223344, %eax
        mov $0x3f8, %dx
        outb %al, %dx
        outw %ax, %dx
        outl %eax, %dx
        outb %al, $0x80
        hlt`,
    });
    for (const [size, port, bytes] of [
      [1, 0x3f8, [0x44]],
      [2, 0x3f8, [0x44, 0x33]],
      [4, 0x3f8, [0x44, 0x33, 0x22, 0x11]],
      [1, 0x80, [0x44]],
    ] as const) {
      const exit = g.expect('io');
      t.match(exit, { direction: 'out', port, size, count: 1 });
      t.strictSame([...exit.data], bytes);
    }
    g.expect('hlt');
  });
}

t.test('port input of all sizes reaches the register', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    code: `
      mov $-1, %eax
      mov $0x510, %dx
      inb %dx, %al
      mov %eax, %ebx
      mov $-1, %eax
      inw %dx, %ax
      mov %eax, %ecx
      inl %dx, %eax
      hlt`,
  });
  for (const size of [1, 2, 4]) {
    const exit = g.expect('io');
    t.match(exit, { direction: 'in', port: 0x510, size });
    exit.data.set([0x78, 0x56, 0x34, 0x12].slice(0, size));
  }
  g.expect('hlt');
  const regs = g.vcpu.getRegs();
  t.equal(regs.rbx, 0xffffff78n);
  t.equal(regs.rcx, 0xffff5678n);
  t.equal(regs.rax, 0x12345678n);
});

t.test('string output hands over every byte in order', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    code: `
      mov $text, %esi
      mov $5, %ecx
      mov $0x3f8, %dx
      rep outsb
      hlt
    text: .ascii "hello"`,
  });
  let text = '';
  let exit = g.run();
  while (exit.reason === 'io') {
    t.equal(exit.data.length, exit.size * exit.count);
    text += Buffer.from(exit.data).toString('latin1');
    exit = g.run();
  }
  t.equal(exit.reason, 'hlt');
  t.equal(text, 'hello');
});

t.test('string input fills memory', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    code: `
      mov $0x20000, %edi
      mov $4, %ecx
      mov $0x60, %dx
      rep insw
      hlt`,
  });
  let next = 1;
  let exit = g.run();
  while (exit.reason === 'io') {
    for (let i = 0; i < exit.data.length; i++) {
      exit.data[i] = next++;
    }
    exit = g.run();
  }
  t.equal(exit.reason, 'hlt');
  t.strictSame([...g.memory.read(0x20000, 8)], [1, 2, 3, 4, 5, 6, 7, 8]);
});

t.test('MMIO writes and reads of all sizes, outside every slot', async (t) => {
  const g = microGuest(t, {
    mode: 'long',
    code: `
      mov $0xc0000000, %ebx
      mov $0x1122334455667788, %rax
      movb %al, (%rbx)
      movw %ax, 2(%rbx)
      movl %eax, 4(%rbx)
      movq %rax, 8(%rbx)
      movb (%rbx), %cl
      movw 2(%rbx), %si
      movl 4(%rbx), %edi
      movq 8(%rbx), %r8
      hlt`,
  });
  const value = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
  const places = [
    [0xc0000000n, 1],
    [0xc0000002n, 2],
    [0xc0000004n, 4],
    [0xc0000008n, 8],
  ] as const;
  for (const [address, size] of places) {
    const exit = g.expect('mmio');
    t.match(exit, { direction: 'write', address });
    t.strictSame([...exit.data], value.slice(0, size));
  }
  for (const [address, size] of places) {
    const exit = g.expect('mmio');
    t.match(exit, { direction: 'read', address });
    t.equal(exit.data.length, size);
    exit.data.set(value.slice(0, size));
  }
  g.expect('hlt');
  const regs = g.vcpu.getRegs();
  t.equal(regs.rcx & 0xffn, 0x88n);
  t.equal(regs.rsi & 0xffffn, 0x7788n);
  t.equal(regs.rdi, 0x55667788n);
  t.equal(regs.r8, 0x1122334455667788n);
});

t.test('a triple fault is a shutdown', async (t) => {
  // No IDT: the exception, the double fault for it, and the third have nowhere to go.
  const g = microGuest(t, { mode: 'protected', code: 'ud2' });
  const sregs = g.vcpu.getSregs();
  sregs.idt = { base: 0n, limit: 0 };
  g.vcpu.setSregs(sregs);
  g.expect('shutdown');
});

t.test('exceptions reach the guest: ud2 runs its handler', async (t) => {
  for (const mode of modes) {
    const g = microGuest(t, { mode, code: 'ud2\nhandler: out %al, $0x99\nhlt' });
    g.setVector(6, 'handler');
    t.equal(g.expect('io').port, 0x99, mode);
  }
});

t.test('immediate exit returns at once, and the guest goes on afterwards', async (t) => {
  const g = microGuest(t, { mode: 'real', code: 'out %al, $1\nhlt' });
  g.vcpu.setImmediateExit(true);
  g.expect('intr');
  t.equal(g.vcpu.getRegs().rip, 0x1000n, 'no instruction ran');
  g.vcpu.setImmediateExit(false);
  t.equal(g.expect('io').port, 1);
});

t.test('code outside memory is an internal error with its reason', async (t) => {
  // Fetching an instruction where there is no slot: KVM has to emulate and cannot.
  const g = microGuest(t, { mode: 'protected', code: 'mov $0x40000000, %eax\njmp *%eax' });
  const exit = g.expect('internal-error');
  t.equal(exit.suberror, KVM_INTERNAL_ERROR_EMULATION);
  t.equal(exit.message, 'emulation failure');
  t.ok(Array.isArray(exit.data));
  t.equal(g.vcpu.getRegs().rip, 0x40000000n, 'the registers show where');
});
