import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { BalloonConfig } from '../../src/machine/config.js';
import { Machine } from '../../src/machine/machine.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';

// Each boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const MIB = 1 << 20;
const { kernel } = guestFiles({});

/** Private memory of this process in MiB: the guest's is in it. */
function resident(): number {
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  return Number(line?.[1]) / 1024;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A guest of 192 MiB that does what it is told, line by line, on its serial port. */
async function boot(t: Test, balloon: BalloonConfig) {
  const folder = temporaryFolder(t);
  const [keys, screen] = [join(folder, 'keys'), join(folder, 'screen')];
  execFileSync('mkfifo', [keys]);
  const input = openSync(keys, 'r+');
  const output = openSync(screen, 'w');
  t.teardown(() => {
    closeSync(input);
    closeSync(output);
  });
  const initrd = makeInitramfs(
    t,
    `
    mount -t tmpfs -o size=100% tmpfs /mnt
    stty -echo < /dev/ttyS0
    echo "<begun>"
    while read line; do eval "$line"; echo "<done>"; done < /dev/ttyS0
    `,
  );
  const machine = await Machine.create({
    memory: 192 * MIB,
    cpus: 1,
    kernel: { path: kernel, initrd, commandLine: 'quiet' },
    serial: { input, output },
    balloon,
  });
  t.teardown(() => machine.close());
  machine.start();
  const seen = (word: string): number => readFileSync(screen, 'latin1').split(word).length - 1;
  await until(() => seen('<begun>') === 1);
  const tell = async (line: string): Promise<void> => {
    const before = seen('<done>');
    writeSync(input, `${line}\n`);
    await until(() => seen('<done>') > before);
  };
  const powerOff = (): number => writeSync(input, 'poweroff -f\n');
  return { machine, tell, powerOff, screen: () => readFileSync(screen, 'latin1') };
}

t.test('memory goes into the balloon and out of it, and statistics tell', async (t) => {
  const { machine, tell, powerOff, screen } = await boot(t, { reporting: false });
  const { balloon } = machine;
  const told: number[] = [];
  balloon.on('actual', (bytes) => told.push(bytes));
  // Memory that the guest has used and does not need any more stays with the host.
  await tell('dd if=/dev/zero of=/mnt/big bs=1M count=130 2>/dev/null; rm /mnt/big');
  const before = resident();
  const free = await balloon.statistics();
  t.ok(Number(free.freeMemory) > 130 * MIB, `free: ${free.freeMemory}`);
  t.ok(Number(free.totalMemory) > 150 * MIB && Number(free.totalMemory) <= 192 * MIB);
  t.ok(Number(free.availableMemory) <= Number(free.totalMemory));

  balloon.setTarget(96 * MIB);
  await until(() => balloon.actual === 96 * MIB);
  const inflated = resident();
  // Its pages come from what was used and from what was not, which is less than 40 MiB.
  t.ok(before - inflated > 56, `resident: ${before} MiB, then ${inflated} MiB`);
  await until(() => told.at(-1) === 96 * MIB);
  const less = await balloon.statistics();
  t.ok(Number(free.freeMemory) - Number(less.freeMemory) > 90 * MIB, `free: ${less.freeMemory}`);
  t.ok(Number(machine.metrics().balloon?.bytesWritten) >= 96 * MIB);

  balloon.setTarget(0);
  await until(() => balloon.actual === 0);
  await tell('dd if=/dev/zero of=/mnt/big bs=1M count=120 2>/dev/null; echo "size $(stat -c %s /mnt/big)"');
  t.match(screen(), `size ${120 * MIB}`, 'the guest has its memory again');
  t.ok(resident() - inflated > 60);

  await machine.pause();
  balloon.setTarget(8 * MIB);
  await t.rejects(balloon.statistics(1), /the guest has given no statistics within 1 ms/);
  await machine.resume();
  await until(() => balloon.actual === 8 * MIB);
  powerOff();
  t.equal((await machine.wait()).reason, 'power-off');
});

t.test('what the guest frees goes back to the host by itself', async (t) => {
  const { machine, tell, powerOff } = await boot(t, { target: 16 * MIB });
  await until(() => machine.balloon.actual === 16 * MIB);
  await tell('dd if=/dev/zero of=/mnt/big bs=1M count=120 2>/dev/null');
  const used = resident();
  await tell('rm /mnt/big');
  await until(() => resident() < used - 100);
  t.pass('100 of 120 MiB');
  powerOff();
  t.equal((await machine.wait()).reason, 'power-off');
});
