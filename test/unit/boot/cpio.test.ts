import t from 'tap';
import { type CpioEntry, isCpio, readCpio, writeCpio } from '../../../src/boot/cpio.js';
import { buildInitramfs, extendInitramfs, MODULE_LIST, moduleFiles } from '../../../src/boot/initramfs.js';
import { damaged } from '../../support/boot-images.js';
import { survive } from '../../support/hostile.js';

const ENTRIES: readonly CpioEntry[] = [
  { path: 'bin', mode: 0o040755 },
  { path: 'bin/sh', mode: 0o120777, data: Buffer.from('busybox') },
  { path: 'bin/busybox', mode: 0o100755, data: Buffer.from('#!') },
  { path: 'dev/console', mode: 0o020600, device: [5, 1] },
  { path: 'naïve', mode: 0o100644, uid: 7, gid: 8, data: new Uint8Array(5) },
];
const read = (bytes: Uint8Array) => readCpio(bytes, 'initrd');
const summary = (bytes: Uint8Array) =>
  read(bytes).map(({ path, data }) => [path, Buffer.from(data ?? []).toString('latin1')]);

t.test('what is written is read', async (t) => {
  const archive = writeCpio(ENTRIES);
  t.equal(archive.length % 4, 0);
  t.ok(isCpio(archive));
  const entries = read(archive);
  t.same(
    entries.map((entry) => entry.path),
    ['bin', 'bin/busybox', 'bin/sh', 'dev/console', 'naïve'],
  );
  t.match(entries[2], { mode: 0o120777 });
  t.equal(Buffer.from(entries[2]?.data ?? []).toString(), 'busybox');
  t.match(entries[3], { mode: 0o020600, device: [5, 1] });
  t.match(entries[4], { uid: 7, gid: 8 });
});

t.test('the same entries make the same bytes, in whatever order', async (t) => {
  t.same(writeCpio([...ENTRIES].reverse()), writeCpio(ENTRIES));
});

t.test('a header as the kernel expects it', async (t) => {
  const archive = Buffer.from(writeCpio([{ path: 'a', mode: 0o100644, data: Buffer.from('xyz') }])).toString(
    'latin1',
  );
  const fields = ['00000001', '000081A4', '00000000', '00000000', '00000001', '00000000', '00000003'];
  const rest = ['00000000', '00000000', '00000000', '00000000', '00000002', '00000000'];
  t.equal(archive.slice(0, 116), `070701${fields.join('')}${rest.join('')}a\0xyz\0`);
  t.match(archive.slice(116), /^070701.*TRAILER!!!\0/);
});

t.test('paths that no archive should have', async (t) => {
  for (const path of ['', '/a', 'a/', 'a//b', 'a/../b', '.', 'a\0b', 'TRAILER!!!', 'x'.repeat(4096)]) {
    t.throws(
      () => writeCpio([{ path, mode: 0o100644 }]),
      { code: 'bad-archive' },
      JSON.stringify(path.slice(0, 20)),
    );
  }
  const twice = { path: 'a', mode: 0o100644 };
  t.throws(() => writeCpio([twice, twice]), { code: 'bad-archive', message: /a comes twice/ });
});

t.test('archives behind each other, with zeros between', async (t) => {
  const one = writeCpio([{ path: 'one', mode: 0o100644 }]);
  const two = writeCpio([{ path: 'two', mode: 0o100644 }]);
  t.same(summary(Buffer.concat([one, new Uint8Array(512), two])), [
    ['one', ''],
    ['two', ''],
  ]);
  t.same(read(new Uint8Array(512)), []);
});

t.test('what is no archive', async (t) => {
  const archive = Uint8Array.from(writeCpio(ENTRIES));
  const change = (offset: number, words: string) => {
    const copy = archive.slice();
    copy.set(Buffer.from(words), offset);
    return copy;
  };
  for (const [bytes, message] of [
    [
      Buffer.from(
        'hello, this is a text that is surely longer than a cpio header, or is it? It is, by now: 110.....'.repeat(
          2,
        ),
      ),
      /byte 0: its magic/,
    ],
    [Buffer.from('070701'), /byte 0: truncated/],
    [change(10, 'xx'), /no hexadecimal/],
    [change(94, 'FFFFFFFF'), /c_namesize: 4294967295/],
    [change(94, '00000000'), /c_namesize: 0/],
    [change(94, '00000003'), /end with a NUL/],
    [change(94, '00000FFF'), /its name is truncated/],
    [change(54, 'FFFFFFFF'), /c_filesize: bin is truncated/],
    [change(111, '\0'), /contains a NUL/],
    [Buffer.concat([Uint8Array.of(0), archive]), /not aligned/],
  ] as const) {
    t.throws(() => read(bytes), { code: 'bad-archive', message });
  }
});

t.test('damaged archives end in entries or a BootError', async (t) => {
  const result = await survive(damaged(writeCpio(ENTRIES), 240, 1000), read);
  t.same(result.escaped, []);
  t.ok(result.refused > 500);
});

t.test('an initramfs with the folders that its files need', async (t) => {
  const files = [
    { path: '/init', data: Buffer.from('i'), permissions: 0o755 },
    { path: '/a/b/c', data: Buffer.from('c') },
  ];
  const entries = read(buildInitramfs(files));
  t.same(
    entries.map(({ path, mode }) => [path, mode.toString(8)]),
    [
      ['a', '40755'],
      ['a/b', '40755'],
      ['a/b/c', '100644'],
      ['init', '100755'],
    ],
  );
  t.throws(() => buildInitramfs([{ path: 'init', data: Buffer.from('') }]), {
    message: /not an absolute path/,
  });
  t.throws(() => buildInitramfs([{ path: '/../init', data: Buffer.from('') }]), { code: 'bad-archive' });
});

t.test('modules on top of a base', async (t) => {
  const base = writeCpio([{ path: 'init', mode: 0o100755, data: Buffer.from('agent') }]);
  const modules = moduleFiles([
    { path: '/lib/modules/6/b.ko', data: Buffer.from('B') },
    { path: '/lib/modules/6/a.ko', data: Buffer.from('A') },
  ]);
  const whole = summary(extendInitramfs(base.subarray(0, base.length), modules, 'base'));
  t.same(whole[0], ['init', 'agent']);
  t.same(
    new Map(whole as [string, string][]).get(MODULE_LIST.slice(1)),
    '/lib/modules/6/b.ko\n/lib/modules/6/a.ko\n',
    'in the order in which to load them',
  );
  t.throws(() => extendInitramfs(Buffer.from('\x1f\x8b'), modules, 'base.gz'), {
    code: 'bad-archive',
    message: /base\.gz: not an uncompressed cpio archive/,
  });
});
