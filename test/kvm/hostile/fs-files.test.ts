/** FUSE requests that lie about files, handles and ranges, and floods of them (virtio 1.2, 5.11; linux/fuse.h). */
import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { attack, type Case, served } from '../../support/hostile-guest/cases.js';
import { INDIRECT, WRITE, writeDescriptor } from '../../support/hostile-guest/driver.js';
import { fuse, fuseRequest, inHeader, longs, words } from '../../support/hostile-guest/fuse.js';
import {
  ATTRIBUTES,
  call,
  expects,
  HIGH_PRIORITY,
  inSession,
  lookup,
  name,
  OUT_HEADER,
  open,
  READ,
  REQUESTS,
  ROOT,
  WRITES,
} from '../../support/hostile-guest/fuse-session.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const bench = await fullBench();

const EPERM = -1;
const EBADF = -9;
const EINVAL = -22;
const ELOOP = -40;
const ESTALE = -116;

const files: readonly Case[] = [
  inSession('a symbolic link out of the share is opened by nobody', async (driver) => {
    const link = await lookup(driver, 'link');
    await expects(ELOOP, call(driver, fuse.OPEN, link, words(0, 0)));
    const target = await expects(0, call(driver, fuse.READLINK, link));
    assert.equal(target.toString(), '../secret');
    for (const opcode of [fuse.LOOKUP, fuse.OPENDIR, fuse.READ]) {
      const { error } = await call(driver, opcode, link, opcode === fuse.LOOKUP ? name('x') : words(0, 0));
      assert.ok(error < 0);
    }
    assert.ok((await call(driver, fuse.SETATTR, link, ATTRIBUTES(8))).error < 0, 'no truncation through it');
    assert.equal(readFileSync(join(bench.folder, 'secret'), 'utf8'), 'secret');
  }),
  inSession('handles that there are not', async (driver) => {
    const node = await lookup(driver, 'file');
    for (const handle of [0n, 1n, 77n, 0xffff_ffffn, 0xffff_ffff_ffff_ffffn]) {
      await expects(EBADF, call(driver, fuse.READ, node, READ(handle, 0, 16)));
      await expects(EBADF, call(driver, fuse.WRITE, node, WRITES(handle, 0, 1, Buffer.from('x'))));
      for (const [opcode, body] of [
        [fuse.FSYNC, longs(handle, 0)],
        [fuse.LSEEK, Buffer.concat([longs(handle, 0), words(0, 0)])],
        [fuse.READDIR, READ(handle, 0, 100)],
        [fuse.READDIRPLUS, READ(handle, 0, 100)],
        [fuse.FALLOCATE, Buffer.concat([longs(handle, 0, 1), words(0, 0)])],
        [fuse.COPY_FILE_RANGE, longs(handle, 0, node, handle, 0, 1, 0)],
        [fuse.FSYNCDIR, longs(handle, 0)],
      ] as const) {
        const { error } = await call(driver, opcode, node, body);
        assert.ok(error < 0, `opcode ${opcode} with the handle ${handle}`);
      }
    }
  }),
  inSession('a handle released twice, then used', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 0);
    const release = Buffer.concat([longs(handle), words(0, 0), longs(0)]);
    await expects(0, call(driver, fuse.RELEASE, node, release));
    await call(driver, fuse.RELEASE, node, release);
    await expects(EBADF, call(driver, fuse.READ, node, READ(handle, 0, 16)));
  }),
  inSession('a file’s handle as a folder’s, and the other way round', async (driver) => {
    const node = await lookup(driver, 'file');
    const dir = await lookup(driver, 'dir');
    const file = await open(driver, node, 0);
    const folder = (await expects(0, call(driver, fuse.OPENDIR, dir, words(0, 0)))).readBigUInt64LE(0);
    assert.ok((await call(driver, fuse.READDIR, node, READ(file, 0, 100))).error < 0 || file === folder);
    assert.ok(
      (await call(driver, fuse.RELEASEDIR, node, Buffer.concat([longs(file), Buffer.alloc(16)]))).error <= 0,
    );
    await call(driver, fuse.RELEASE, dir, Buffer.concat([longs(folder), Buffer.alloc(16)]));
  }),
  inSession('reads at offsets and of sizes that there are not', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 0);
    for (const [offset, size, error] of [
      [0n, 0, 0],
      [1n << 40n, 16, 0],
      [(1n << 63n) - 1n, 1, EINVAL],
      [1n << 63n, 16, EINVAL],
      [0xffff_ffff_ffff_ffffn, 16, EINVAL],
    ] as const) {
      const reply = await call(driver, fuse.READ, node, READ(handle, offset, size));
      assert.ok(reply.error === error || reply.error === EINVAL, `${offset}: ${reply.error}`);
    }
    const body = await expects(0, call(driver, fuse.READ, node, READ(handle, 0, 0xffff_ffff)));
    assert.equal(body.toString(), 'content');
    const short = await expects(0, call(driver, fuse.READ, node, READ(handle, 0, 4096), { room: 3 }));
    assert.equal(short.toString(), 'con', 'no more than there is room for');
  }),
  inSession('writes of more than was sent, and behind the end of files', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 2);
    for (const size of [2, 4096, 1 << 20, (1 << 20) + 1, 0x7fff_ffff, 0xffff_ffff]) {
      await expects(
        EINVAL,
        call(driver, fuse.WRITE, node, WRITES(handle, 0, size, Buffer.from('x'))),
        `${size}`,
      );
    }
    for (const offset of [(1n << 63n) - 1n, 1n << 63n, 0xffff_ffff_ffff_ffffn]) {
      assert.ok(
        (await call(driver, fuse.WRITE, node, WRITES(handle, offset, 2, Buffer.from('xy')))).error < 0,
      );
    }
    assert.equal(readFileSync(join(bench.share, 'file'), 'utf8'), 'content');
  }),
  inSession(
    'a write through a handle that only reads, and a read through one that only writes',
    async (driver) => {
      const node = await lookup(driver, 'file');
      const reader = await open(driver, node, 0);
      await expects(EBADF, call(driver, fuse.WRITE, node, WRITES(reader, 0, 1, Buffer.from('x'))));
      const writer = await open(driver, node, 1);
      await expects(EBADF, call(driver, fuse.READ, node, READ(writer, 0, 16)));
      assert.equal(readFileSync(join(bench.share, 'file'), 'utf8'), 'content');
    },
  ),
  inSession('all flags at once in OPEN, CREATE and OPENDIR', async (driver) => {
    const node = await lookup(driver, 'file');
    const { error } = await call(driver, fuse.OPEN, node, words(0xffff_fdff, 0xffff_ffff)); // all but O_TRUNC
    assert.ok(error <= 0);
    await call(driver, fuse.OPENDIR, ROOT, words(0xffff_ffff, 0xffff_ffff));
    assert.equal(readFileSync(join(bench.share, 'file'), 'utf8'), 'content');
  }),
  inSession('a SETATTR with nothing and with everything valid, on what there is not', async (driver) => {
    await expects(ESTALE, call(driver, fuse.SETATTR, 99, ATTRIBUTES(0xffff_ffff)));
    await expects(0, call(driver, fuse.SETATTR, ROOT, ATTRIBUTES(0)));
    assert.ok((await call(driver, fuse.SETATTR, ROOT, ATTRIBUTES(8))).error < 0, 'a folder is not truncated');
  }),
  inSession('FALLOCATE, LSEEK and COPY_FILE_RANGE with ranges that wrap', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 2);
    const far = 0xffff_ffff_ffff_ff00n;
    for (const [opcode, body] of [
      [fuse.FALLOCATE, Buffer.concat([longs(handle, far, 0x200n), words(0, 0)])],
      [fuse.FALLOCATE, Buffer.concat([longs(handle, 0, 1n << 63n), words(0, 0)])],
      [fuse.FALLOCATE, Buffer.concat([longs(handle, 0, 1), words(0xffff_ffff, 0)])],
      [fuse.LSEEK, Buffer.concat([longs(handle, far), words(0, 0)])],
      [fuse.LSEEK, Buffer.concat([longs(handle, 0), words(99, 0)])],
      [fuse.COPY_FILE_RANGE, longs(handle, far, node, handle, 0, 0x200n, 0)],
      [fuse.COPY_FILE_RANGE, longs(handle, 0, node, handle, far, 0x200n, 0)],
      [fuse.COPY_FILE_RANGE, longs(handle, 0, node, handle, 0, 1n << 63n, 0xffff_ffff_ffff_ffffn)],
    ] as const) {
      assert.ok((await call(driver, opcode, node, body)).error < 0, `opcode ${opcode}`);
    }
    assert.equal(readFileSync(join(bench.share, 'file'), 'utf8'), 'content');
  }),
  inSession('READDIR from any position, into any room', async (driver) => {
    const handle = (await expects(0, call(driver, fuse.OPENDIR, ROOT, words(0, 0)))).readBigUInt64LE(0);
    for (const opcode of [fuse.READDIR, fuse.READDIRPLUS]) {
      for (const offset of [0n, 1n, 77n, 1n << 31n, 1n << 62n, 1n << 63n, 0xffff_ffff_ffff_ffffn]) {
        for (const size of [0, 1, 24, 200, 4096, 0xffff_ffff]) {
          const { error, length } = await call(driver, opcode, ROOT, READ(handle, offset, size), {
            room: 512,
          });
          assert.ok(error <= 0 && length <= OUT_HEADER + Math.min(size, 512), `${offset}, ${size}: ${error}`);
        }
      }
    }
  }),
  inSession('extended attributes of wrong lengths', async (driver) => {
    const node = await lookup(driver, 'file');
    for (const size of [0, 1, 65536, 0x7fff_ffff, 0xffff_ffff]) {
      const { error } = await call(
        driver,
        fuse.GETXATTR,
        node,
        Buffer.concat([words(size, 0), name('user.none')]),
      );
      assert.ok(error < 0);
      const listed = await call(driver, fuse.LISTXATTR, node, words(size, 0));
      assert.ok(listed.error <= 0);
      if (size > 4) {
        const set = Buffer.concat([words(size, 0), name('user.x'), Buffer.from('abcd')]);
        assert.ok((await call(driver, fuse.SETXATTR, node, set)).error < 0, `a value of ${size} bytes`);
      }
    }
    await expects(
      EINVAL,
      call(driver, fuse.GETXATTR, node, Buffer.concat([words(16, 0), Buffer.from('unended')])),
    );
  }),
  inSession('locks on what there is not, and with kinds that there are not', async (driver) => {
    const node = await lookup(driver, 'file');
    for (const opcode of [fuse.GETLK, fuse.SETLK, fuse.SETLKW]) {
      for (const kind of [0, 1, 2, 3, 0xffff_ffff]) {
        const body = Buffer.concat([longs(77, 1, 0xffff_ffff_ffff_ffffn, 1), words(kind, 0, 0, 0)]);
        assert.ok((await call(driver, opcode, node, body)).error < 0, `opcode ${opcode}, kind ${kind}`);
      }
    }
  }),
  inSession('a device node and a set-user-id program are no more than the host allows', async (driver) => {
    const body = Buffer.concat([words(0o60666, 0xffff_ffff, 0, 0), name('node')]);
    const { error } = await call(driver, fuse.MKNOD, ROOT, body, { uid: 4_000_000_000 });
    assert.ok(error === 0 || error === EPERM || error < 0);
    if (error === 0) await expects(0, call(driver, fuse.UNLINK, ROOT, name('node')));
  }),
];

const floods: readonly Case[] = [
  inSession('FORGET of more than was looked up, of the root, of what there is not', async (driver) => {
    const node = await lookup(driver, 'file');
    for (const each of [node, ROOT, 0, 12345, 0xffff_ffff_ffff_ffffn]) {
      await call(driver, fuse.FORGET, each, longs(0xffff_ffff_ffff_ffffn));
      await call(driver, fuse.FORGET, each, longs(0));
      await call(driver, fuse.FORGET, each, Buffer.alloc(4));
    }
    await expects(ESTALE, call(driver, fuse.GETATTR, node, Buffer.alloc(16)));
    await expects(0, call(driver, fuse.GETATTR, ROOT, Buffer.alloc(16)), 'the root stays');
  }),
  inSession('BATCH_FORGET that claims 2^32 - 1 entries', async (driver) => {
    for (const entries of [0, 1, 100]) {
      const body = Buffer.concat([words(0xffff_ffff, 0), Buffer.alloc(16 * entries, 1), Buffer.alloc(7)]);
      await call(driver, fuse.BATCH_FORGET, 0, body);
    }
  }),
  inSession('ten thousand FORGETs through the queue of high priority', async (driver) => {
    const ring = driver.ring(HIGH_PRIORITY);
    const address = driver.buffer(fuseRequest(fuse.FORGET, 99, longs(1)));
    ring.chain(0, [{ address, length: 48 }]);
    for (let i = 0; i < 16; i++) ring.put(0);
    await driver.run(
      ...Array.from({ length: 625 }, (_, i) => [
        ...driver.offer(HIGH_PRIORITY, ((i + 1) * 16) & 0xffff),
        driver.returned(HIGH_PRIORITY, (i + 1) * 16),
      ]).flat(),
    );
  }),
  inSession('any request through the queue of high priority', async (driver) => {
    for (const [opcode, body] of [
      [fuse.GETATTR, Buffer.alloc(16)],
      [fuse.LOOKUP, name('file')],
      [fuse.INTERRUPT, longs(1)],
      [fuse.INTERRUPT, Buffer.alloc(0)],
    ] as const) {
      await driver.request(HIGH_PRIORITY, [fuseRequest(opcode, ROOT, body)], [OUT_HEADER, 256]);
    }
  }),
  inSession('four thousand LOOKUPs that are never forgotten, then a reset', async (driver) => {
    const address = driver.buffer(fuseRequest(fuse.LOOKUP, ROOT, name('file')));
    const into = driver.buffer(256);
    const ring = driver.ring(REQUESTS);
    ring.chain(0, [
      { address, length: inHeader + 5 },
      { address: into, length: 256, flags: WRITE },
    ]);
    const from = ring.available;
    for (let i = 0; i < 16; i++) ring.put(0);
    await driver.rig.run([
      ...Array.from({ length: 250 }, (_, i) => [
        ...driver.offer(REQUESTS, (from + (i + 1) * 16) & 0xffff),
        driver.returned(REQUESTS, from + (i + 1) * 16),
      ]).flat(),
    ]);
  }),
  inSession('a thousand OPENs that are never released: an error at some point, no more', async (driver) => {
    const node = await lookup(driver, 'file');
    const ring = driver.ring(REQUESTS);
    ring.chain(0, [
      { address: driver.buffer(fuseRequest(fuse.OPEN, node, words(0, 0))), length: inHeader + 8 },
      { address: driver.buffer(256), length: 256, flags: WRITE },
    ]);
    const from = ring.available;
    for (let i = 0; i < 16; i++) ring.put(0);
    await driver.run(
      ...Array.from({ length: 64 }, (_, i) => [
        ...driver.offer(REQUESTS, (from + (i + 1) * 16) & 0xffff),
        driver.returned(REQUESTS, from + (i + 1) * 16),
      ]).flat(),
    );
  }),
  inSession('a request whose answer lies on the request', async (driver) => {
    const place = driver.buffer(
      Buffer.concat([fuseRequest(fuse.GETATTR, ROOT, Buffer.alloc(16)), Buffer.alloc(128)]),
    );
    driver.ring(REQUESTS).chain(0, [
      { address: place, length: 56 },
      { address: place, length: 120, flags: WRITE },
    ]);
    driver.ring(REQUESTS).put(0);
    await driver.run(...driver.offer(REQUESTS), driver.returned(REQUESTS));
  }),
  inSession('a READ into the rings', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 0);
    const ring = driver.ring(REQUESTS);
    ring.chain(0, [
      { address: driver.buffer(fuseRequest(fuse.READ, node, READ(handle, 0, 7))), length: inHeader + 40 },
      { address: driver.buffer(OUT_HEADER), length: OUT_HEADER, flags: WRITE },
      { address: ring.place.descriptors, length: 7, flags: WRITE },
    ]);
    ring.put(0);
    await driver.run(...driver.offer(REQUESTS), driver.returned(REQUESTS));
  }),
  inSession('a WRITE of a MiB in a thousand pieces', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 2);
    const request = driver.buffer(
      fuseRequest(fuse.WRITE, node, WRITES(handle, 0, 1_000_000, Buffer.alloc(0)), {
        length: 80 + 1_000_000,
      }),
    );
    const data = driver.buffer(Buffer.alloc(1000, 'w'));
    const count = 1002;
    const table = driver.buffer(count * 16);
    const answer = driver.buffer(24);
    for (let i = 0; i < count; i++) {
      const part =
        i === 0
          ? { address: request, length: 80 }
          : i === count - 1
            ? { address: answer, length: 24 }
            : { address: data, length: 1000 };
      const flags = (i === count - 1 ? WRITE : 0) | (i < count - 1 ? 1 : 0);
      writeDescriptor(driver.rig, table + 16 * i, { ...part, flags, next: i + 1 });
    }
    driver.ring(REQUESTS).describe(0, { address: table, length: count * 16, flags: INDIRECT });
    driver.ring(REQUESTS).put(0);
    await driver.run(...driver.offer(REQUESTS), driver.returned(REQUESTS));
    assert.equal(driver.rig.memory.readU32(answer + 16), 1_000_000);
    // And back to what it was.
    await expects(0, call(driver, fuse.SETATTR, node, ATTRIBUTES(8)));
    await expects(0, call(driver, fuse.WRITE, node, WRITES(handle, 0, 7, Buffer.from('content'))));
  }),
  {
    name: 'the share is what it was, and nothing beside it has changed',
    verdict: served,
    async attack() {
      assert.equal(readFileSync(join(bench.share, 'file'), 'utf8'), 'content');
      assert.equal(readFileSync(join(bench.folder, 'secret'), 'utf8'), 'secret');
      assert.deepEqual(readdirSync(bench.folder).sort(), ['disk', 'read-only', 'secret', 'share']);
    },
  },
];

attack(bench, 'fs', [...files, ...floods]);
bench.end();
