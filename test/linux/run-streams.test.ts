import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { outcome, sha256, start, tsvmm } from '../support/tsvmm.js';

const MIB = 1 << 20;

t.test("standard output and error are apart, and the status is the process's", async (t) => {
  const bundle = makeBundle(t, 'echo out; echo err >&2; printf "no newline"; exit 7');
  t.same(await tsvmm(['run', bundle]), { status: 7, stdout: 'out\nno newline', stderr: 'err\n' });
});

t.test('every byte passes, in both directions', async (t) => {
  const bundle = makeBundle(t, 'cat');
  const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const input = Buffer.concat([every, Buffer.from('\r\n\0\u0004\u001a'), randomBytes(32 * MIB)]);
  const { status, stdout, stderr } = await tsvmm(['run', bundle], input);
  t.same({ status, stderr }, { status: 0, stderr: '' });
  t.equal(stdout.length, input.length);
  t.equal(sha256(Buffer.from(stdout, 'latin1')), sha256(input));
});

t.test('64 MiB from a file and to a file', async (t) => {
  const bundle = makeBundle(t, 'tee /dev/stderr');
  const folder = temporaryFolder(t);
  const input = randomBytes(64 * MIB);
  writeFileSync(join(folder, 'in'), input);
  const fds = [
    openSync(join(folder, 'in'), 'r'),
    openSync(join(folder, 'out'), 'w'),
    openSync(join(folder, 'err'), 'w'),
  ];
  const { status } = await outcome(start(['run', bundle], { stdio: fds }));
  for (const fd of fds) closeSync(fd);
  t.equal(status, 0);
  t.equal(sha256(readFileSync(join(folder, 'out'))), sha256(input));
  t.equal(sha256(readFileSync(join(folder, 'err'))), sha256(input));
});

t.test("the end of the input is the process's end-of-file, and not before", async (t) => {
  const bundle = makeBundle(t, 'read line; echo "got $line"; read rest && echo more || echo end-of-file');
  const child = start(['run', bundle]);
  const ended = outcome(child);
  child.stdin?.write('first\n');
  await new Promise<void>((resolve) => child.stdout?.once('data', () => resolve()));
  child.stdin?.end();
  t.same(await ended, { status: 0, stdout: 'got first\nend-of-file\n', stderr: '' });
});

t.test('a process that ends while there is more input, or closes its streams itself', async (t) => {
  const bundle = makeBundle(t, 'exec >&-; echo err >&2; exec 2>&-; head -c 10 >/dev/null; exit 3');
  t.same(await tsvmm(['run', bundle], Buffer.alloc(4 * MIB, 'x')), {
    status: 3,
    stdout: '',
    stderr: 'err\n',
  });
});

t.test('no standard streams at all', async (t) => {
  const bundle = makeBundle(t, 'cat; echo lost; exit 5');
  const child = start(['run', bundle], { stdio: 'ignore' });
  t.equal((await outcome(child)).status, 5);
});

t.test('a reader that has gone ends the writer', async (t) => {
  const bundle = makeBundle(t, 'yes');
  const child = start(['run', bundle]);
  const first = await new Promise<Buffer>((resolve) => child.stdout?.once('data', resolve));
  t.match(first.toString(), /^y\ny\n/);
  child.stdout?.destroy();
  const status = await new Promise((resolve) => child.on('exit', resolve));
  t.ok(status === 1 || status === 141, `busybox yes ends with an error or SIGPIPE: ${status}`);
});

t.test('a file that cannot be written is told', async (t) => {
  const bundle = makeBundle(t, 'head -c 100000 /dev/zero; exit 0');
  const full = openSync('/dev/full', 'w');
  const child = start(['run', bundle], { stdio: ['ignore', full, 'pipe'] });
  const { stderr } = await outcome(child);
  closeSync(full);
  t.match(stderr, /tsvmm: warning: \d+ bytes of standard output could not be written/);
});

t.test('what background processes still write is not lost', async (t) => {
  const bundle = makeBundle(t, '(i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done) & wait');
  const { status, stdout } = await tsvmm(['run', bundle]);
  t.equal(status, 0);
  t.equal(stdout.trim().split('\n').length, 2000);
});
