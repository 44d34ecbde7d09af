import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { describeFs, type FsOptions } from '../../../src/virtio/fs/index.js';

const folder = mkdtempSync(join(tmpdir(), 'tsvmm-fs-'));
t.teardown(() => rmSync(folder, { recursive: true }));

t.test('describes the device', async (t) => {
  const description = describeFs({ name: 'rootfs', tag: 'würzel', directory: folder });
  t.equal(description.name, 'rootfs');
  t.equal(description.deviceId, 26);
  t.equal(description.features, 0n);
  t.same(description.queueSizes, [128, 512]);
  t.equal(description.config.length, 40);
  t.same(description.config.subarray(0, 9), new Uint8Array([...Buffer.from('würzel'), 0, 0]), 'tag');
  t.equal(new DataView(description.config.buffer).getUint32(36, true), 1, 'num_request_queues');
});

t.test('takes a tag of 36 bytes and every option', async (t) => {
  const tag = 't'.repeat(36);
  const options = {
    cache: 'always',
    writeback: true,
    locks: 'host',
    posixAcl: true,
    readOnly: true,
  } as const;
  t.equal(describeFs({ name: 'a', tag, directory: folder, ...options }).config[35], 't'.charCodeAt(0));
});

t.test('takes folders and files as exports', async (t) => {
  const file = join(folder, 'single');
  writeFileSync(file, '');
  const exports = [
    { name: 'data', path: folder, readOnly: true },
    { name: 'hosts', path: file },
    { name: 'null', path: '/dev/null' },
  ];
  t.equal(describeFs({ name: 'volumes', tag: 'volumes', exports }).deviceId, 26);
});

t.test('refuses exports that cannot be', async (t) => {
  const name = 'expected 1 to 255 bytes without a slash, not . or .., got';
  const cases: [FsOptions['exports'], string][] = [
    [undefined, 'share v: expected either directory or exports'],
    [[], 'share v: exports: expected 1 to 1000 of them'],
    [[{ name: '..', path: folder }], `share v: exports[0].name: ${name} ".."`],
    [[{ name: 'a/b', path: folder }], `share v: exports[0].name: ${name} "a/b"`],
    [
      [
        { name: 'a', path: folder },
        { name: 'a', path: folder },
      ],
      'share v: exports[1].name: "a" is used twice',
    ],
    [[{ name: 'a', path: '' }], 'share v: exports[0].path: expected the path of a folder or file, got ""'],
    [
      [{ name: 'a', path: join(folder, 'none') }],
      `share v: exports[0].path: ${join(folder, 'none')} does not exist`,
    ],
  ];
  for (const [exports, message] of cases) {
    t.throws(() => describeFs({ name: 'v', tag: 'v', exports }), { message });
  }
  t.throws(() =>
    describeFs({ name: 'v', tag: 'v', directory: folder, exports: [{ name: 'a', path: folder }] }),
  );
});

t.test('refuses what cannot be', async (t) => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const good = { name: 'data', tag: 'data', directory: folder };
  const cases: [object, string][] = [
    [{ name: '' }, 'share: name: expected 1 to 64 characters, got ""'],
    [{ tag: '' }, 'share data: tag: expected 1 to 36 bytes of UTF-8 without NUL, got ""'],
    [
      { tag: 'ü'.repeat(19) },
      `share data: tag: expected 1 to 36 bytes of UTF-8 without NUL, got "${'ü'.repeat(19)}"`,
    ],
    [{ tag: 'a\0b' }, 'share data: tag: expected 1 to 36 bytes of UTF-8 without NUL, got "a\\u0000b"'],
    [{ directory: '' }, 'share data: directory: expected the path of a folder, got ""'],
    [{ directory: 7 }, 'share data: directory: expected the path of a folder, got 7'],
    [{ directory: join(folder, 'none') }, `share data: directory: ${join(folder, 'none')} does not exist`],
    [{ directory: file }, `share data: directory: ${file} is not a folder`],
    [{ directory: join(file, 'x') }, `share data: directory: ${join(file, 'x')} cannot be reached (ENOTDIR)`],
    [{ cache: 'some' }, `share data: cache: expected one of 'none', 'auto', 'always', got "some"`],
    [{ locks: 'none' }, `share data: locks: expected one of 'guest', 'host', got "none"`],
    [{ writeback: true }, "share data: writeback: only with cache 'always', which is 'auto' here"],
  ];
  for (const [change, message] of cases) {
    t.throws(() => describeFs({ ...good, ...change } as FsOptions), { message }, message);
  }
});

t.test('takes a map of ids, and refuses one that cannot be', async (t) => {
  const take = (uids: unknown, posixAcl = false) =>
    describeFs({
      name: 'v',
      tag: 'v',
      directory: folder,
      posixAcl,
      idMap: { uids, gids: [{ guest: 0, host: 1000, count: 1 }] } as FsOptions['idMap'],
    });
  const one = { guest: 0, host: 1000, count: 1 };
  const rest = { guest: 1, host: 100_000, count: 65_536 };
  t.equal(take([one, rest]).deviceId, 26);
  t.equal(take([{ guest: 0, host: 0, count: 0xffffffff }]).deviceId, 26, 'every id there is');
  const ids = 'share v: idMap.uids[0]: expected ids from 0 to 4294967294, got';
  const cases: [unknown, string][] = [
    [undefined, 'share v: idMap.uids: expected 1 to 340 ranges'],
    [[], 'share v: idMap.uids: expected 1 to 340 ranges'],
    [new Array(341).fill(one), 'share v: idMap.uids: expected 1 to 340 ranges'],
    [[{ ...one, count: 0 }], `${ids} 0 from guest 0 on`],
    [[{ ...one, count: 1.5 }], `${ids} 1.5 from guest 0 on`],
    [[{ ...one, guest: -1 }], `${ids} 1 from guest -1 on`],
    [[{ ...one, host: 0xffffffff }], `${ids} 1 from host 4294967295 on`],
    [[{ ...one, host: '0' }], `${ids} 1 from host 0 on`],
    [[one, { ...rest, guest: 0 }], "share v: idMap.uids[1]: meets [0] on the guest's side"],
    [[one, { ...rest, host: 990 }], "share v: idMap.uids[1]: meets [0] on the host's side"],
  ];
  for (const [uids, message] of cases) t.throws(() => take(uids), { message }, message);
  t.throws(() => take([one], true), {
    message: 'share v: idMap: not with posixAcl, whose lists hold ids, too',
  });
});
