import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type BlkOptions, describeBlk } from '../../../src/virtio/blk/index.js';

const folder = mkdtempSync(join(tmpdir(), 'tsvmm-blk-'));
t.teardown(() => rmSync(folder, { recursive: true }));

function image(name: string, size: number): string {
  const path = join(folder, name);
  writeFileSync(path, Buffer.alloc(size, 1));
  return path;
}

t.test('describes the device', async (t) => {
  const path = image('disk', 1 << 20);
  const blk = describeBlk({ name: 'blk0', path, id: 'root', queues: 4, queueSize: 128 });
  t.equal(blk.disk.sectors, 2048);
  t.equal(blk.locked, true);
  const { description } = blk;
  t.equal(description.deviceId, 2);
  t.same(description.queueSizes, [128, 128, 128, 128]);
  const bits = [2, 6, 9, 11, 12, 13, 14].reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
  t.equal(description.features, bits, 'SEG_MAX, BLK_SIZE, FLUSH, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES');
  const config = new DataView(description.config.buffer);
  t.equal(config.getBigUint64(0, true), 2048n, 'capacity');
  t.equal(config.getUint32(12, true), 126, 'seg_max');
  t.equal(config.getUint32(20, true), 512, 'blk_size');
  t.equal(config.getUint16(34, true), 4, 'num_queues');
  t.equal(config.getUint8(32), 1, 'writeback');
  t.same(description.writableConfig, { offset: 32, length: 1 });
  t.equal(config.getUint32(44, true), 1, 'discard_sector_alignment');
  t.equal(config.getUint8(56), 1, 'write_zeroes_may_unmap');
  blk.close();
  blk.close();
});

t.test('a read-only disk offers RO and nothing that writes', async (t) => {
  const blk = describeBlk({ name: 'blk0', path: image('ro', 4096), readOnly: true });
  t.equal(blk.description.features, (1n << 2n) | (1n << 5n) | (1n << 6n) | (1n << 9n));
  t.same(blk.description.queueSizes, [256]);
  blk.close();
});

t.test('a read-only image may end inside a sector, a writable one may not', async (t) => {
  const path = image('odd', 700);
  const blk = describeBlk({ name: 'blk0', path, readOnly: true });
  t.equal(blk.disk.sectors, 2);
  blk.close();
  t.throws(
    () => describeBlk({ name: 'blk0', path }),
    new Error(
      `disk ${path}: its 700 bytes are not a whole number of 512-byte sectors; enlarge it (truncate -s %512) or open it read-only (ro)`,
    ),
  );
});

t.test('one machine writes, or several read', async (t) => {
  const path = image('shared', 4096);
  const writer = describeBlk({ name: 'a', path });
  t.throws(() => describeBlk({ name: 'b', path }), /disk .*shared: it is already in use as a disk/);
  t.throws(
    () => describeBlk({ name: 'b', path, readOnly: true }),
    /disk .*shared: it is already in use as a writable disk/,
  );
  writer.close();
  const readers = [1, 2].map((n) => describeBlk({ name: `r${n}`, path, readOnly: true }));
  t.throws(() => describeBlk({ name: 'b', path }), /already in use/);
  for (const reader of readers) reader.close();
  describeBlk({ name: 'b', path }).close();
});

t.test('disks that cannot be opened', async (t) => {
  const missing = join(folder, 'missing');
  const link = join(folder, 'dangling');
  symlinkSync(missing, link);
  for (const [path, message] of [
    [missing, `disk ${missing}: there is no such file`],
    [link, `disk ${link}: there is no such file`],
    [folder, `disk ${folder}: is a folder; a raw disk image or a block device is expected`],
    ['/dev/null', 'disk /dev/null: is neither a file nor a block device'],
    [image('empty', 0), `disk ${join(folder, 'empty')}: is empty`],
    [`${missing}/below`, `disk ${missing}/below: there is no such file`],
  ] as const) {
    t.throws(() => describeBlk({ name: 'blk0', path }), new Error(message));
  }
});

t.test('another disk before the machine runs', async (t) => {
  const path = image('first', 4096);
  const other = image('second', 8192);
  const { disk, close } = describeBlk({ name: 'blk0', path });
  await disk.replace(other);
  t.equal(disk.sectors, 16);
  describeBlk({ name: 'b', path }).close(); // the first is free again
  t.throws(() => describeBlk({ name: 'b', path: other }), /already in use/);
  truncateSync(other, 16384);
  t.equal(disk.sectors, 16);
  await disk.refresh();
  t.equal(disk.sectors, 32);
  truncateSync(other, 12288);
  await disk.replace(other); // its own image: as refresh()
  t.equal(disk.sectors, 24);
  await t.rejects(
    disk.replace(join(folder, 'gone')),
    new Error(`disk ${folder}/gone: there is no such file`),
  );
  truncateSync(other, 700);
  await t.rejects(disk.refresh(), /second: its 700 bytes are not a whole number of 512-byte sectors/);
  truncateSync(other, 0);
  await t.rejects(disk.refresh(), /second: is empty/);
  t.throws(() => disk.replace(''), /disk blk0: replace: expected the path/);
  t.equal(disk.sectors, 24);
  close();
  await t.rejects(disk.refresh(), /second: has been closed/);
  describeBlk({ name: 'b', path: image('second', 4096) }).close();
});

t.test('direct I/O where the file system has it, and an error where not', async (t) => {
  const path = image('direct', 1 << 20);
  const blk = describeBlk({ name: 'blk0', path, direct: true });
  const blockSize = new DataView(blk.description.config.buffer).getUint32(20, true);
  t.ok([512, 1024, 2048, 4096].includes(blockSize), `blk_size ${blockSize}`);
  blk.close();
});

t.test('bad options', async (t) => {
  const path = image('fine', 4096);
  const bad = (options: Partial<BlkOptions>, message: RegExp): void => {
    t.throws(() => describeBlk({ name: 'blk0', path, ...options }), message);
  };
  bad({ name: '' }, /^disk: name: expected 1 to 64 characters, got ""$|name/);
  bad({ path: '' }, /disk blk0: path: expected the path of a raw image or a block device/);
  bad({ path: 'a\0b' }, /disk blk0: path: contains a NUL character/);
  bad({ id: 'x'.repeat(21) }, /disk blk0: id: expected at most 20 bytes without NUL/);
  bad({ id: 'äöüäöüäöüäö' }, /disk blk0: id: expected at most 20 bytes/);
  bad({ id: 'a\0' }, /disk blk0: id: /);
  bad({ queues: 0 }, /disk blk0: queues: expected a whole number from 1 to 16, got 0/);
  bad({ queues: 17 }, /disk blk0: queues: /);
  bad({ queues: 1.5 }, /disk blk0: queues: .* got 1.5/);
  bad({ queueSize: 2 }, /disk blk0: queueSize: expected a whole number from 4 to 1024, got 2/);
  bad({ queueSize: 100 }, /disk blk0: queueSize: expected a power of two, got 100/);
  bad({ engine: 'aio' as 'auto' }, /disk blk0: engine: expected auto, uring or threads, got "aio"/);
  bad({ limits: { bytesPerSecond: -1 } }, /disk blk0: limits: bytesPerSecond: expected a whole number/);
  bad({ limits: { operationsPerSecond: 0.5 } }, /disk blk0: limits: operationsPerSecond: /);
  bad({ limits: { bytesBurst: 5 } }, /disk blk0: limits: bytesBurst without bytesPerSecond limits nothing/);
  bad({ queueSize: Number.NaN }, /disk blk0: queueSize: /);
  describeBlk({ name: 'blk0', path }).close();
});
