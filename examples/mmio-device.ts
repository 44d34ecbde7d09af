// A device on the bus, written in TypeScript: a counter that a guest reads at 0xc0100000 and sets by writing there.
// In the guest: `devmem 0xc0100000 32`.   Run: node mmio-device.js KERNEL INITRD
import { Machine, type ScriptDevice } from '../src/index.js';

export function counter(): ScriptDevice {
  let value = 0;
  return {
    name: 'counter',
    space: 'memory',
    base: 0xc010_0000,
    length: 0x1000,
    read: () => value++,
    write: (_offset, _size, next) => {
      value = Number(next);
    },
  };
}

if (process.argv[1]?.endsWith('mmio-device.js')) {
  const [path = 'guest/out/bzImage', initrd = 'guest/out/hello.cpio'] = process.argv.slice(2);
  const machine = await Machine.create({
    memory: 128 << 20,
    cpus: 1,
    kernel: { path, initrd },
    serial: { input: 0, output: 1 },
    devices: [counter()],
  });
  machine.start();
  console.log(await machine.wait());
  machine.close();
}
