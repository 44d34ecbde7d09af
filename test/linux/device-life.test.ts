import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { fortyTwo } from '../../examples/virtio-device.js';
import { Machine, type MachineConfig } from '../../src/index.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';

// Boots Linux, in the testbed under emulation.
t.setTimeout(300_000);

const MIB = 1 << 20;

/** A machine whose serial console is a file, and who waits for a line in it. */
async function create(t: Test, script: string, more: Partial<MachineConfig>) {
  const file = join(temporaryFolder(t), 'console');
  const output = openSync(file, 'w');
  const log: string[] = [];
  const machine = await Machine.create({
    memory: 128 * MIB,
    cpus: 1,
    kernel: { path: guestFiles({}).kernel, initrd: makeInitramfs(t, script), commandLine: 'quiet' },
    serial: { output },
    log: (line) => log.push(line),
    ...more,
  });
  t.teardown(() => {
    machine.close();
    closeSync(output);
  });
  const seen = () => readFileSync(file, 'latin1').replaceAll('\r', '');
  const until = async (line: string): Promise<void> => {
    let ended = false;
    machine.wait().then(() => {
      ended = true;
    });
    while (!seen().includes(`${line}\n`)) {
      if (ended) throw new Error(`the machine ended without ${JSON.stringify(line)}: ${seen()}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return { machine, seen, until, log };
}

t.test('devices are paused, saved, restored and removed under a running guest', async (t) => {
  const folder = temporaryFolder(t);
  const disk = join(folder, 'disk');
  writeFileSync(disk, Buffer.alloc(MIB));
  const share = join(folder, 'share');
  mkdirSync(share);
  writeFileSync(join(share, 'long'), Array.from({ length: 200 }, (_, n) => `word${n}\n`).join(''));
  const { machine, seen, until, log } = await create(
    t,
    `
    mount -t virtiofs data /mnt
    exec 5>/mnt/log 6</mnt/long
    n=0
    while [ $n -lt 120 ]; do
      printf '%-512s' "sector $n" | dd of=/dev/vda bs=512 seek=$n oflag=direct conv=notrunc 2>/dev/null || echo "failed at $n"
      dd if=/dev/vda bs=512 skip=$n count=1 iflag=direct 2>/dev/null | grep -q "sector $n " || echo "misread at $n"
      [ "$(head -c 1 /dev/hwrng | od -An -tu1 | tr -d ' ')" = 42 ] || echo "not 42 at $n"
      echo "line $n" >&5 || echo "failed to append at $n"
      read word <&6
      [ "$word" = "word$n" ] || echo "misread of an open file at $n: $word"
      mkdir /mnt/folder$n && echo $n > /mnt/folder$n/file || echo "failed to create at $n"
      echo "tick $n"
      n=$((n + 1))
    done
    exec 5>&- 6<&-
    umount /mnt || echo "failed to unmount"
    echo done
    poweroff -f
    `,
    {
      disks: [{ path: disk }],
      shares: [{ tag: 'data', directory: share }],
      balloon: true,
      virtio: [fortyTwo()],
      rng: false,
    },
  );
  t.same(
    machine.devices.map(({ name, deviceId }) => [name, deviceId]),
    [
      ['blk0', 2],
      ['data', 26],
      ['balloon', 5],
      ['forty-two', 4],
    ],
  );
  t.match(await machine.save(), { version: 1, devices: { blk0: { status: 0, deviceId: 2 } } });
  machine.start();
  await t.rejects(machine.save(), /blk0: cannot save while it works/);

  for (const tick of [5, 20, 60]) {
    await until(`tick ${tick}`);
    await machine.pause();
    const rest = seen();
    const state = await machine.save();
    t.equal(seen(), rest, 'nothing happens in a paused machine');
    await t.rejects(machine.restore({ ...state, version: 9 }), /version: this build reads version 1, got 9/);
    await t.rejects(machine.restore({ version: 1, devices: { ...state.devices, other: null } }), /"other"/);
    await machine.restore(state);
    t.same(await machine.save(), state, 'what was restored is saved the same');
    await machine.resume();
  }
  // One device alone: the guest waits for it and goes on.
  await until('tick 80');
  const blk = machine.device('blk0');
  await blk.pause();
  const before = blk.metrics().requests;
  const state = await blk.save();
  await blk.restore(state);
  t.equal(blk.metrics().requests, before);
  await blk.resume();
  await until('done');
  const { requests, bytesRead, bytesWritten, errors, interrupts, notifications } = blk.metrics();
  t.ok(requests >= 240 && bytesRead >= 120 * 512 && bytesWritten >= 120 * 512);
  t.ok(interrupts > 0 && notifications > 0);
  t.equal(errors, 0);
  t.same(await machine.wait(), { reason: 'power-off' });
  t.notMatch(seen(), /failed|misread|not 42/);
  t.same(log, []);
  t.equal(
    readFileSync(join(share, 'log'), 'utf8'),
    Array.from({ length: 120 }, (_, n) => `line ${n}\n`).join(''),
  );
  for (let n = 0; n < 120; n++) t.equal(readFileSync(join(share, `folder${n}/file`), 'utf8'), `${n}\n`);
  const written = readFileSync(disk, 'latin1');
  for (let n = 0; n < 120; n++) t.ok(written.slice(n * 512).startsWith(`sector ${n} `));
});

t.test('a device that is taken away is gone for the guest, and the others go on', async (t) => {
  const folder = temporaryFolder(t);
  const disk = join(folder, 'disk');
  writeFileSync(disk, Buffer.alloc(MIB));
  const { machine, until } = await create(
    t,
    `
    echo ready
    echo $(basename $(readlink /sys/block/vda/device)) > /sys/bus/virtio/drivers/virtio_blk/unbind
    echo unbound
    while [ "$(devmem 0xc0000008 32)" != 0x00000000 ]; do :; done
    echo "gone: $(devmem 0xc0000008 32)"
    head -c 16 /dev/hwrng > /dev/null && echo "others go on"
    poweroff -f
    `,
    { disks: [{ path: disk }] },
  );
  machine.start();
  await until('unbound');
  await machine.device('blk0').remove();
  await until('gone: 0x00000000');
  await until('others go on');
  t.same(await machine.wait(), { reason: 'power-off' });
  t.throws(() => machine.device('blk7'), /no device "blk7"; it has blk0, rng/);
});
