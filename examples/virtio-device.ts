// A virtio device with a queue, written in TypeScript: an entropy source (virtio 1.2, 5.4) that is not random at all.
// Linux's own driver finds it; in the guest: `head -c 8 /dev/hwrng`.   Run: node virtio-device.js KERNEL INITRD
import { Machine, type ScriptVirtioDevice } from '../src/index.js';

export function fortyTwo(): ScriptVirtioDevice {
  return {
    name: 'forty-two',
    deviceId: 4,
    queueSizes: [8],
    serve: (chain) => {
      chain.write(new Uint8Array(chain.writableSize).fill(42));
    },
  };
}

if (process.argv[1]?.endsWith('virtio-device.js')) {
  const [path = 'guest/out/bzImage', initrd = 'guest/out/hello.cpio'] = process.argv.slice(2);
  const machine = await Machine.create({
    memory: 128 << 20,
    cpus: 1,
    kernel: { path, initrd },
    serial: { input: 0, output: 1 },
    rng: false,
    virtio: [fortyTwo()],
  });
  machine.start();
  console.log(await machine.wait());
  machine.close();
}
