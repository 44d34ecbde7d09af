/**
 * The smallest guest: a few bytes of code that print a word through a port, on /dev/kvm, in TypeScript alone. Run it:
 *
 *     npx tsc -p tsconfig.json && node out/js/examples/kvm-hello.js
 */
import { Kvm } from '../src/kvm/kvm.js';
import { GuestMemory } from '../src/memory/guest-memory.js';

const text = 'Hello from a machine of your own\n';
const code = [
  ...[0xbe, 0x0c, 0x10], //         mov  $0x100c, %si   the text, right behind the code
  ...[0xb9, text.length, 0x00], //  mov  $length, %cx
  ...[0xba, 0xf8, 0x03], //         mov  $0x3f8, %dx    where a PC has its first serial port
  ...[0xf3, 0x6e], //               rep outsb
  0xf4, //                          hlt
];

// A machine is a VM, memory in a slot of it, and a processor.
const kvm = Kvm.open();
const vm = kvm.createVm();
const memory = new GuestMemory({ regions: [{ address: 0, size: 0x10000 }] });
memory.regions.forEach(({ address, size, host }, slot) => {
  vm.setUserMemoryRegion({ slot, address, size, host });
});
const vcpu = vm.createVcpu(0);

// The processor wakes in real mode at the top of memory, as in 1978. Let it begin at 0x1000 instead.
memory.write(0x1000, Buffer.concat([Buffer.from(code), Buffer.from(text)]));
const sregs = vcpu.getSregs();
sregs.cs.base = 0n;
sregs.cs.selector = 0;
vcpu.setSregs(sregs);
vcpu.setRegs({ rip: 0x1000n });

// Until it halts, every access to a port comes back to us.
let exit = vcpu.run();
while (exit.reason === 'io') {
  process.stdout.write(exit.data);
  exit = vcpu.run();
}
console.log(`the guest ended: ${exit.reason}`);
for (const part of [vcpu, vm, kvm, memory]) {
  part.close();
}
