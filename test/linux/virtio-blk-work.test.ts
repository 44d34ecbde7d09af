import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { Machine } from '../../src/machine/machine.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';

// Boots Linux, in the testbed under emulation.
t.setTimeout(400_000);

const MIB = 1 << 20;

/** A folder on a file system that has direct I/O, which a tmpfs may not have: ext4 on a loop device then. */
function directFolder(t: Test): string {
  const folder = temporaryFolder(t);
  const probe = join(folder, 'probe');
  writeFileSync(probe, Buffer.alloc(4096));
  try {
    execFileSync('dd', [`if=${probe}`, 'of=/dev/null', 'bs=4096', 'iflag=direct'], { stdio: 'ignore' });
    return folder;
  } catch {
    const image = join(folder, 'ext4');
    writeFileSync(image, '');
    truncateSync(image, 256 * MIB);
    execFileSync('mkfs.ext4', ['-q', image]);
    const mounted = temporaryFolder(t);
    execFileSync('mount', ['-o', 'loop', image, mounted]);
    t.teardown(() => execFileSync('umount', [mounted]));
    return mounted;
  }
}

function image(folder: string, name: string, size: number, fill = 0): string {
  const path = join(folder, name);
  writeFileSync(path, Buffer.alloc(size, fill));
  return path;
}

t.test('disks under real work, and what happens to them meanwhile', async (t) => {
  const folder = directFolder(t);
  const cached = image(folder, 'cached', 24 * MIB);
  const direct = image(folder, 'direct', 16 * MIB, 0xff);
  const threads = image(folder, 'threads', 16 * MIB);
  const small = image(folder, 'small', 2 * MIB, 0x11);
  const other = image(folder, 'other', 3 * MIB, 0x22);
  const limited = image(folder, 'limited', MIB);
  const script = `
    mount -t virtiofs -o ro host /mnt
    mount -t devtmpfs dev /mnt/dev
    mount -t proc proc /mnt/proc
    mount -t tmpfs tmpfs /mnt/tmp
    # By its path: busybox would run its own program of that name.
    host() { chroot /mnt /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
    size() { cat /sys/block/$1/size; }

    echo "queues: $(ls /sys/block/vdb/mq | wc -l) block size: $(cat /sys/block/vdb/queue/logical_block_size)"
    for disk in vda vdb vdc; do
      host fio --name=verify --filename=/dev/$disk --rw=randwrite --bsrange=4k-256k --size=6m --direct=1 --thread \
        --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --fsync=64 \
        --verify_state_save=0 --eta=never --output=/tmp/fio \
        && echo "fio $disk: verified" || cat /mnt/tmp/fio
    done

    host mkfs.ext4 -q /dev/vda && mkdir -p /mnt/tmp/fs && mount -t ext4 -o discard /dev/vda /mnt/tmp/fs
    cp -r /mnt${packageRoot()}/src /mnt/tmp/fs/
    diff -r /mnt${packageRoot()}/src /mnt/tmp/fs/src && echo "copied"
    umount /mnt/tmp/fs
    host e2fsck -fn /dev/vda > /mnt/tmp/fsck 2>&1 && echo "fsck: clean" || cat /mnt/tmp/fsck

    echo write through > /sys/block/vdc/cache_type
    echo "cache: $(cat /sys/block/vdc/cache_type)"
    dd if=/dev/zero of=/dev/vdc bs=4k count=4 oflag=direct 2>/dev/null && echo "written through"

    blkdiscard -o 4194304 -l 8388608 /dev/vdb && echo "discarded"
    host blkdiscard -z -o 0 -l 1048576 /dev/vdb && echo "zeroed"

    echo "small: $(size vdd)"
    while [ "$(size vdd)" = 4096 ]; do :; done
    echo "grown: $(size vdd)"
    while [ "$(size vdd)" = 8192 ]; do :; done
    echo "other: $(size vdd) $(dd if=/dev/vdd bs=4k count=1 iflag=direct 2>/dev/null | od -An -tx1 -N1)"
    echo "truncate"
    while dd if=/dev/vdd of=/dev/null bs=4k skip=300 count=1 iflag=direct 2>/dev/null; do :; done
    echo "refused"
    dd if=/dev/vdd of=/dev/null bs=4k count=2 iflag=direct 2>/dev/null && echo "the rest is there"

    dd if=/dev/vde of=/dev/null bs=4k count=60 iflag=direct 2>/dev/null && echo "limited"
    poweroff -f
  `;
  const file = join(temporaryFolder(t), 'console');
  const output = openSync(file, 'w');
  const log: string[] = [];
  const machine = await Machine.create({
    memory: 256 * MIB,
    cpus: 2,
    kernel: { path: guestFiles({}).kernel, initrd: makeInitramfs(t, script), commandLine: 'quiet' },
    serial: { output },
    shares: [{ tag: 'host', directory: '/', readOnly: true }],
    disks: [
      { path: cached },
      { path: direct, direct: true, queues: 2 },
      { path: threads, engine: 'threads' },
      { path: small },
      { path: limited, limits: { operationsPerSecond: 100, operationsBurst: 20 } },
    ],
    log: (line) => log.push(line),
  });
  t.teardown(() => {
    machine.close();
    closeSync(output);
  });
  let ended = false;
  machine.wait().then(() => {
    ended = true;
  });
  const seen = (): string => readFileSync(file, 'latin1').replaceAll('\r', '');
  const until = async (line: string): Promise<void> => {
    while (!seen().includes(`${line}\n`)) {
      if (ended) throw new Error(`the machine ended without ${JSON.stringify(line)}: ${seen()}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const started = performance.now();
  machine.start();

  await until('small: 4096');
  for (const line of [
    'fio vda: verified',
    'fio vdb: verified',
    'fio vdc: verified',
    'copied',
    'fsck: clean',
    'cache: write through',
    'written through',
    'discarded',
    'zeroed',
  ]) {
    t.match(seen(), `${line}\n`);
  }
  t.match(seen(), /queues: 2 block size: (512|4096)\n/);
  const content = readFileSync(direct);
  t.ok(content.subarray(4 * MIB, 12 * MIB).equals(Buffer.alloc(8 * MIB)), 'a hole');
  t.ok(content.subarray(0, MIB).equals(Buffer.alloc(MIB)), 'zeros');
  t.ok(content.subarray(12 * MIB).equals(Buffer.alloc(4 * MIB, 0xff)));
  t.ok(statSync(direct).blocks * 512 <= 9 * MIB, 'its blocks are free');

  const disk = machine.disk('blk3');
  truncateSync(small, 4 * MIB);
  await disk.refresh();
  await until('grown: 8192');
  await disk.replace(other);
  await until('other: 6144  22');
  t.equal(disk.sectors, 6144);
  await until('truncate');
  truncateSync(other, MIB);
  await until('refused');
  await until('the rest is there');
  await until('limited');
  t.same(await machine.wait(), { reason: 'power-off' });

  const limits = machine.device('blk4').metrics();
  const seconds = (performance.now() - started) / 1000;
  t.ok(limits.requests >= 60);
  t.ok(limits.requests <= 20 + 100 * seconds + 1, 'no more than the limit lets through');
  t.equal(limits.errors, 0);
  t.match(
    log[0],
    /^blk3: I\/O error while reading at byte 1\d{6}: the file has become shorter than the disk$/,
  );
  t.notOk(
    log.some((line) => !line.startsWith('blk3: I/O error while reading')),
    'nothing else went wrong',
  );
  for (const name of ['blk0', 'blk1', 'blk2']) t.equal(machine.device(name).metrics().errors, 0);
  t.throws(() => machine.disk('blk9'), /blk9: no such disk; there are: blk0, blk1, blk2, blk3, blk4/);
  machine.close();
  execFileSync('e2fsck', ['-fn', cached], { stdio: 'ignore' });
});
