/** A read-only share, and everything that would change it (linux/fuse.h). */
import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { attack, type Case } from '../../support/hostile-guest/cases.js';
import { fuse, longs, words } from '../../support/hostile-guest/fuse.js';
import {
  ATTRIBUTES,
  call,
  expects,
  inSession,
  lookup,
  name,
  open,
  ROOT,
  WRITES,
} from '../../support/hostile-guest/fuse-session.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const EROFS = -30;

const bench = await fullBench({ fs: { readOnly: true } });
const BODIES: readonly (readonly [string, number, Buffer])[] = [
  ['SETATTR', fuse.SETATTR, ATTRIBUTES(1)],
  ['SYMLINK', fuse.SYMLINK, Buffer.concat([name('new'), name('target')])],
  ['MKNOD', fuse.MKNOD, Buffer.concat([words(0o100644, 0, 0, 0), name('new')])],
  ['MKDIR', fuse.MKDIR, Buffer.concat([words(0o755, 0), name('new')])],
  ['UNLINK', fuse.UNLINK, name('file')],
  ['RMDIR', fuse.RMDIR, name('dir')],
  ['RENAME', fuse.RENAME, Buffer.concat([longs(ROOT), name('file'), name('new')])],
  ['RENAME2', fuse.RENAME2, Buffer.concat([longs(ROOT, 0), name('file'), name('new')])],
  ['LINK', fuse.LINK, Buffer.concat([longs(ROOT), name('new')])],
  ['CREATE', fuse.CREATE, Buffer.concat([words(0x42, 0o644, 0, 0), name('new')])],
  ['TMPFILE', fuse.TMPFILE, Buffer.concat([words(0x42, 0o644, 0, 0), name('new')])],
  ['SETXATTR', fuse.SETXATTR, Buffer.concat([words(1, 0), name('user.x'), Buffer.from('x')])],
  ['REMOVEXATTR', fuse.REMOVEXATTR, name('user.x')],
  ['FALLOCATE', fuse.FALLOCATE, Buffer.concat([longs(0, 0, 1), words(0, 0)])],
  ['COPY_FILE_RANGE', fuse.COPY_FILE_RANGE, longs(0, 0, 1, 0, 0, 1, 0)],
  ['WRITE', fuse.WRITE, WRITES(0n, 0, 1, Buffer.from('x'))],
];
attack(bench, 'fs', [
  ...BODIES.map(
    ([operation, opcode, body]): Case =>
      inSession(`read-only: ${operation}`, async (driver) => {
        await expects(EROFS, call(driver, opcode, ROOT, body));
        assert.deepEqual(readdirSync(bench.share).sort(), ['dir', 'file', 'link']);
      }),
  ),
  inSession('read-only: OPEN to write, to truncate', async (driver) => {
    const node = await lookup(driver, 'file');
    for (const flags of [1, 2, 3, 0x200, 0x201, 0x401]) {
      await expects(EROFS, call(driver, fuse.OPEN, node, words(flags, 0)), `flags 0x${flags.toString(16)}`);
    }
    const handle = await open(driver, node, 0);
    await expects(EROFS, call(driver, fuse.WRITE, node, WRITES(handle, 0, 1, Buffer.from('x'))));
    assert.equal(readFileSync(join(bench.share, 'file'), 'utf8'), 'content');
  }),
]);
bench.end();
