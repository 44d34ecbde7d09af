import { readFileSync } from 'node:fs';
import t from 'tap';
import * as k from '../../src/kvm/constants.js';
import { microGuest } from '../support/micro-guest.js';

t.test('single step stops behind every instruction', async (t) => {
  const g = microGuest(t, { mode: 'protected', code: 'nop\nnop\nmov $5, %eax\nhlt' });
  g.vcpu.setGuestDebug(k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_SINGLESTEP);
  for (const pc of [0x1001n, 0x1002n, 0x1007n]) {
    const exit = g.expect('debug');
    t.match(exit, { exception: 1, pc });
    t.equal(exit.dr6 & 0x4000n, 0x4000n, 'DR6.BS');
  }
  t.equal(g.vcpu.getRegs().rax, 5n);
  g.vcpu.setGuestDebug(0);
  g.expect('hlt');
});

t.test('a hardware break point stops before its instruction', async (t) => {
  const g = microGuest(t, { mode: 'protected', code: 'nop\nnop\nhere: mov $5, %eax\nhlt' });
  const at = BigInt(g.label('here'));
  // DR0 holds the address, DR7 bit 1 enables it globally, for execution.
  g.vcpu.setGuestDebug(k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_HW_BP, [
    at,
    0n,
    0n,
    0n,
    0n,
    0n,
    0n,
    0x602n,
  ]);
  const exit = g.run();
  if (exit.reason === 'hlt') {
    // QEMU's emulation of SVM loads DR7 without arming it: such a host runs on.
    t.match(readFileSync('/proc/cpuinfo', 'latin1'), 'hypervisor');
    return;
  }
  t.match(exit, { reason: 'debug', exception: 1, pc: at });
  t.equal(g.vcpu.getRegs().rax, 0n);
});
