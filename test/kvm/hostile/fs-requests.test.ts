/** FUSE requests that lie about their shape, their session and their names (virtio 1.2, 5.11; linux/fuse.h). */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { attack, type Case, served } from '../../support/hostile-guest/cases.js';
import {
  type FuseHeader,
  fuse,
  fuseInit,
  fuseRequest,
  inHeader,
  longs,
  words,
} from '../../support/hostile-guest/fuse.js';
import {
  call,
  expects,
  init,
  inSession,
  lookup,
  name,
  OUT_HEADER,
  open,
  REQUESTS,
  ROOT,
} from '../../support/hostile-guest/fuse-session.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const bench = await fullBench();

const EIO = -5;
const EBADF = -9;
const EINVAL = -22;
const ENAMETOOLONG = -36;
const EPROTO = -71;
const ESTALE = -116;

/** A request as raw bytes; it comes back with this used length. */
const raw = (title: string, length: number, readable: Uint8Array[], writable: number[]): Case =>
  inSession(title, async (driver) => {
    assert.equal((await driver.request(REQUESTS, readable, writable)).length, length);
  });

const getattr = (more: FuseHeader = {}): Buffer => fuseRequest(fuse.GETATTR, ROOT, Buffer.alloc(16), more);

const headers: readonly Case[] = [
  raw('nothing at all', 0, [], []),
  raw('a header of 39 bytes', 0, [getattr().subarray(0, inHeader - 1)], [120]),
  raw(
    'a request without room for an answer: nothing is done',
    0,
    [fuseRequest(fuse.UNLINK, ROOT, name('file'))],
    [],
  ),
  raw(
    '15 bytes of room for an answer: nothing is done',
    0,
    [fuseRequest(fuse.UNLINK, ROOT, name('file'))],
    [15],
  ),
  raw('a length of 0', OUT_HEADER, [getattr({ length: 0 })], [120]),
  raw('a length less than the header', OUT_HEADER, [getattr({ length: 39 })], [120]),
  raw('a length one more than there is', OUT_HEADER, [getattr({ length: 57 })], [120]),
  raw('a length of 2^32 - 1', OUT_HEADER, [getattr({ length: 0xffff_ffff })], [120]),
  raw('a length that hides the body', OUT_HEADER, [getattr({ length: inHeader })], [120]),
  raw(
    'a header in single bytes',
    120,
    [...[...getattr().subarray(0, 12)].map((byte) => Buffer.from([byte])), getattr().subarray(12)],
    [1, 119],
  ),
  raw('an answer in pieces', 120, [getattr()], [1, 3, 7, 5, 104]),
  inSession('every opcode from 0 to 127, and some beyond, with no body', async (driver) => {
    const skipped: number[] = [fuse.INIT, fuse.DESTROY, fuse.FORGET, fuse.BATCH_FORGET, fuse.INTERRUPT];
    for (const opcode of [...Array(128).keys(), 4096, 0x7fff_ffff, 0xffff_ffff]) {
      const { error, length } = await call(driver, opcode, ROOT);
      if (skipped.includes(opcode)) continue;
      assert.ok(length >= OUT_HEADER && error <= 0, `opcode ${opcode}: ${error}`);
    }
  }),
  inSession('every opcode with a body of ones', async (driver) => {
    for (let opcode = 1; opcode < 64; opcode++) {
      if (opcode === fuse.INIT || opcode === fuse.DESTROY) continue;
      await call(driver, opcode, ROOT, Buffer.alloc(128, 0xff), { room: 4096 });
      await call(driver, opcode, 0xffff_ffff_ffff_ffffn, Buffer.alloc(128, 0xff), { room: 4096 });
    }
  }),
  inSession('every opcode with a body of zeros, and no room beyond the header', async (driver) => {
    for (let opcode = 1; opcode < 64; opcode++) {
      if (opcode === fuse.INIT || opcode === fuse.DESTROY) continue;
      await call(driver, opcode, ROOT, Buffer.alloc(128), { room: 0 });
    }
    assert.deepEqual(readdirSync(bench.share).sort(), ['dir', 'file', 'link']);
  }),
  inSession('nodes that there are not', async (driver) => {
    for (const node of [0, 2, 77, 0x8000_0000, 0x7fff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn]) {
      await expects(ESTALE, call(driver, fuse.GETATTR, node, Buffer.alloc(16)), `GETATTR of ${node}`);
      await expects(ESTALE, call(driver, fuse.LOOKUP, node, name('file')), `LOOKUP in ${node}`);
      await expects(ESTALE, call(driver, fuse.OPEN, node, words(0, 0)), `OPEN of ${node}`);
    }
  }),
];

const sessions: readonly Case[] = [
  {
    name: 'requests before INIT',
    verdict: served,
    async attack(driver) {
      await expects(EIO, call(driver, fuse.GETATTR, ROOT, Buffer.alloc(16)));
      await expects(EIO, call(driver, fuse.LOOKUP, ROOT, name('file')));
      await call(driver, fuse.FORGET, ROOT, longs(1));
    },
  },
  {
    name: 'an INIT of every length up to its own',
    verdict: served,
    async attack(driver) {
      for (let length = inHeader; length < inHeader + 16; length++) {
        const bytes = Buffer.from(fuseInit().subarray(0, length));
        bytes.writeUInt32LE(length, 0);
        const answer = await driver.request(REQUESTS, [bytes], [OUT_HEADER, 64]);
        assert.equal(answer.bytes.readInt32LE(4), EINVAL, `${length} bytes`);
      }
    },
  },
  {
    name: 'an INIT of other versions',
    verdict: served,
    async attack(driver) {
      for (const [major, minor, error] of [
        [0, 0, EPROTO],
        [6, 99, EPROTO],
        [7, 0, EPROTO],
        [8, 0, 0],
        [0xffff_ffff, 0xffff_ffff, 0],
        [7, 0xffff_ffff, 0],
      ] as const) {
        const answer = await driver.request(REQUESTS, [fuseInit(major, minor)], [OUT_HEADER, 64]);
        assert.equal(answer.bytes.readInt32LE(4), error, `${major}.${minor}`);
      }
    },
  },
  inSession('INIT twice, with files open: they are closed', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node, 0);
    await init(driver);
    await expects(
      EBADF,
      call(driver, fuse.READ, node, Buffer.concat([longs(handle, 0), words(16, 0), longs(0), words(0, 0)])),
    );
    await expects(ESTALE, call(driver, fuse.GETATTR, node, Buffer.alloc(16)));
  }),
  inSession('DESTROY, then more', async (driver) => {
    await lookup(driver, 'file');
    await call(driver, fuse.DESTROY, 0);
    await expects(EIO, call(driver, fuse.GETATTR, ROOT, Buffer.alloc(16)));
    await call(driver, fuse.DESTROY, 0);
    await init(driver);
  }),
  inSession('the device is reset with files open', async (driver) => {
    const node = await lookup(driver, 'file');
    for (let i = 0; i < 8; i++) await open(driver, node, 0);
    await driver.start();
    await init(driver);
  }),
];

/** Each operation that takes a name. */
const NAMED: readonly (readonly [string, number, (text: Buffer) => Buffer])[] = [
  ['LOOKUP', fuse.LOOKUP, (text) => text],
  ['MKDIR', fuse.MKDIR, (text) => Buffer.concat([words(0o755, 0), text])],
  ['MKNOD', fuse.MKNOD, (text) => Buffer.concat([words(0o100644, 0, 0, 0), text])],
  ['CREATE', fuse.CREATE, (text) => Buffer.concat([words(0x42, 0o644, 0, 0), text])],
  ['SYMLINK', fuse.SYMLINK, (text) => Buffer.concat([text, name('target')])],
  ['UNLINK', fuse.UNLINK, (text) => text],
  ['RMDIR', fuse.RMDIR, (text) => text],
  ['RENAME from', fuse.RENAME, (text) => Buffer.concat([longs(ROOT), text, name('new')])],
  ['RENAME to', fuse.RENAME, (text) => Buffer.concat([longs(ROOT), name('file'), text])],
  ['RENAME2 to', fuse.RENAME2, (text) => Buffer.concat([longs(ROOT, 0), name('file'), text])],
  ['LINK', fuse.LINK, (text) => Buffer.concat([longs(ROOT), text])],
];

const names = NAMED.map(
  ([operation, opcode, body]): Case =>
    inSession(`${operation}: names that are none`, async (driver) => {
      for (const bad of [
        '',
        '.',
        '..',
        '/',
        '../secret',
        '/etc/passwd',
        'dir/../file',
        'dir/x',
        'file/',
        '//',
      ]) {
        await expects(EINVAL, call(driver, opcode, ROOT, body(name(bad))), JSON.stringify(bad));
      }
      const long = await call(driver, opcode, ROOT, body(name('n'.repeat(256))));
      assert.equal(long.error, ENAMETOOLONG);
      const unended = await call(driver, opcode, ROOT, body(Buffer.from('unended')));
      assert.ok(
        unended.error < 0 || opcode === fuse.SYMLINK || operation === 'RENAME from',
        `${unended.error}`,
      );
      const huge = await call(driver, opcode, ROOT, body(Buffer.alloc(100_000, 'x')));
      assert.ok(huge.error === ENAMETOOLONG || huge.error === EINVAL, `${huge.error}`);
      assert.ok(
        existsSync(join(bench.share, 'file')) &&
          readFileSync(join(bench.folder, 'secret'), 'utf8') === 'secret',
      );
    }),
);

attack(bench, 'fs', [...headers, ...sessions, ...names]);
bench.end();
