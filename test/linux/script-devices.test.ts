import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { counter } from '../../examples/mmio-device.js';
import { fortyTwo } from '../../examples/virtio-device.js';
import { Machine, type MachineConfig, type MachineExit } from '../../src/index.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';

// Each boots Linux, in the testbed under emulation.
t.setTimeout(300_000);

/** Boots a machine whose init runs `script`; what it printed, how it ended, and what the machine logged. */
async function boot(
  t: Test,
  script: string,
  more: Partial<MachineConfig>,
): Promise<{ readonly output: string; readonly exit: MachineExit; readonly log: string[] }> {
  const file = join(temporaryFolder(t), 'console');
  const output = openSync(file, 'w');
  const log: string[] = [];
  const machine = await Machine.create({
    memory: 128 << 20,
    cpus: 1,
    kernel: { path: guestFiles({}).kernel, initrd: makeInitramfs(t, script), commandLine: 'quiet' },
    serial: { output },
    rng: false,
    log: (line) => log.push(line),
    ...more,
  });
  machine.start();
  const exit = await machine.wait();
  machine.close();
  closeSync(output);
  return { output: readFileSync(file, 'latin1').replaceAll('\r', ''), exit, log };
}

t.test('the guest reads and writes a device on the bus that is written in TypeScript', async (t) => {
  const { output, exit } = await boot(
    t,
    `
    echo "first: $(devmem 0xc0100000 32) $(devmem 0xc0100004 16) $(devmem 0xc0100ffc 8)"
    devmem 0xc0100000 32 500
    echo "then: $(devmem 0xc0100000 32)"
    echo "beside it: $(devmem 0xc0101000 32)"
    poweroff -f
    `,
    { devices: [counter()] },
  );
  t.same(exit, { reason: 'power-off' }, output);
  t.match(output, 'first: 0x00000000 0x0001 0x02');
  t.match(output, 'then: 0x000001F4');
  t.match(output, 'beside it: 0xFFFFFFFF');
});

t.test('the guest uses a virtio device that is written in TypeScript', async (t) => {
  const { output, exit } = await boot(
    t,
    `
    head -c 40 /dev/hwrng | od -v -An -tu1
    poweroff -f
    `,
    { virtio: [fortyTwo()] },
  );
  t.same(exit, { reason: 'power-off' }, output);
  t.equal(output.match(/\b42\b/g)?.length, 40, output);
});

t.test('a device whose code throws fails alone: the guest goes on, and the log says why', async (t) => {
  const { output, exit, log } = await boot(
    t,
    `
    echo "read: $(devmem 0xc0100000 32)"
    poweroff -f
    `,
    {
      devices: [
        {
          name: 'broken',
          space: 'memory',
          base: 0xc010_0000,
          length: 0x1000,
          read: () => {
            throw new Error('this register is broken');
          },
        },
      ],
      virtio: [
        {
          ...fortyTwo(),
          serve: () => {
            throw new Error('this device is broken');
          },
        },
      ],
    },
  );
  t.same(exit, { reason: 'power-off' }, output);
  t.match(output, 'read: 0xFFFFFFFF');
  t.ok(
    log.some((line) => line.includes('this register is broken')),
    log.join('\n'),
  );
  t.ok(
    log.some((line) => line.includes('this device is broken')),
    log.join('\n'),
  );
});

t.test('a machine is stopped while a vCPU waits for JavaScript', async (t) => {
  const machine = await Machine.create({
    memory: 128 << 20,
    cpus: 1,
    kernel: {
      path: guestFiles({}).kernel,
      initrd: makeInitramfs(t, 'devmem 0xc0100000 32'),
      commandLine: 'quiet',
    },
    rng: false,
    devices: [
      {
        name: 'stopper',
        space: 'memory',
        base: 0xc010_0000,
        length: 0x1000,
        read: () => {
          machine.close();
          return 0;
        },
      },
    ],
  });
  machine.start();
  t.same(await machine.wait(), { reason: 'stopped' });
});

t.test('two machines in one process, one after the other and side by side', async (t) => {
  const one = () => boot(t, 'echo "cpus $(nproc)"; poweroff -f', { cpus: 2 });
  t.match((await one()).output, 'cpus 2');
  for (const { exit, output } of await Promise.all([one(), one()])) {
    t.same(exit, { reason: 'power-off' });
    t.match(output, 'cpus 2');
  }
});
