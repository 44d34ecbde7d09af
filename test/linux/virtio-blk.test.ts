import { createHash, randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Machine } from '../../src/machine/machine.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';
import { tsvmm } from '../support/tsvmm.js';

// Each boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const MIB = 1 << 20;
const { kernel } = guestFiles({});
const md5 = (bytes: Buffer): string => createHash('md5').update(bytes).digest('hex');

t.test('a disk is written, flushed, discarded and zeroed', async (t) => {
  const folder = temporaryFolder(t);
  const disk = join(folder, 'disk.img');
  const readOnly = join(folder, 'ro.img');
  const content = randomBytes(8 * MIB);
  writeFileSync(disk, content);
  writeFileSync(readOnly, content.subarray(0, 1000));
  const initrd = makeInitramfs(
    t,
    `
    cd /sys/block
    echo "vda: $(cat vda/size vda/ro | tr '\\n' ' ')"
    echo "vdb: $(cat vdb/size vdb/ro | tr '\\n' ' ')"
    dd if=/dev/vda of=/dev/vda bs=1M count=4 seek=4 2>/dev/null && sync
    blkdiscard -o 0 -l 1048576 /dev/vda && echo discarded
    echo "copy: $(dd if=/dev/vda bs=1M skip=4 count=4 iflag=direct 2>/dev/null | md5sum)"
    dd if=/dev/zero of=/dev/vdb bs=512 count=1 oflag=direct 2>/dev/null || echo refused
    echo "tail: $(md5sum < /dev/vdb)"
    poweroff -f
    `,
  );
  const { status, stdout, stderr } = await tsvmm([
    ...['boot', kernel, '--initrd', initrd, '--append', 'quiet', '--memory', '192M'],
    ...['--disk', disk, '--disk', `${readOnly},ro`],
  ]);
  t.equal(stderr, '');
  t.equal(status, 0);
  t.match(stdout, 'vda: 16384 0 ');
  t.match(stdout, 'vdb: 2 1 ');
  t.match(stdout, 'discarded');
  t.match(stdout, `copy: ${md5(content.subarray(0, 4 * MIB))}`);
  t.match(stdout, 'refused');
  const padded = Buffer.concat([content.subarray(0, 1000), Buffer.alloc(24)]);
  t.match(stdout, `tail: ${md5(padded)}`, 'zeros after the end');
  const after = readFileSync(disk);
  t.ok(after.subarray(0, MIB).equals(Buffer.alloc(MIB)), 'what was discarded is a hole');
  t.ok(after.subarray(MIB, 4 * MIB).equals(content.subarray(MIB, 4 * MIB)));
  t.ok(after.subarray(4 * MIB).equals(content.subarray(0, 4 * MIB)));
  t.ok(statSync(disk).blocks * 512 <= 7 * MIB + 4096, 'its blocks are free');
  t.ok(readFileSync(readOnly).equals(content.subarray(0, 1000)));
});

t.test('a virtio console, both ways', async (t) => {
  const folder = temporaryFolder(t);
  const path = (name: string) => join(folder, name);
  writeFileSync(path('in'), 'a word\n');
  const input = openSync(path('in'), 'r');
  const output = openSync(path('out'), 'w');
  t.teardown(() => {
    closeSync(input);
    closeSync(output);
  });
  const initrd = makeInitramfs(
    t,
    `
    exec 3<>/dev/hvc0
    stty raw -echo <&3
    read line <&3
    echo "heard $line" >&3
    head -c 20000 /dev/zero | tr '\\0' '#' >&3
    poweroff -f
    `,
  );
  const machine = await Machine.create({
    memory: 128 * MIB,
    cpus: 1,
    kernel: { path: kernel, initrd, commandLine: 'quiet' },
    console: { input, output },
  });
  t.teardown(() => machine.close());
  machine.start();
  t.equal((await machine.wait()).reason, 'power-off');
  const seen = readFileSync(path('out'), 'latin1');
  t.match(seen, 'heard a word');
  t.equal(seen.split('#').length - 1, 20_000);
});

t.test('a disk that is none', async (t) => {
  const folder = temporaryFolder(t);
  const initrd = makeInitramfs(t, 'poweroff -f');
  const { status, stderr } = await tsvmm(['boot', kernel, '--initrd', initrd, '--disk', folder]);
  t.equal(status, 125);
  t.equal(stderr, `tsvmm: disk ${folder}: is a folder; a raw disk image or a block device is expected\n`);
});
