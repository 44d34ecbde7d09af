import { existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import t from 'tap';
import { describeVsock } from '../../../src/virtio/vsock/index.js';
import { StreamQueue } from '../../../src/virtio/vsock/stream-queue.js';

/** A device without a machine: everything that can be asked for before the guest is up. */
function device(test: { teardown(end: () => void): void }) {
  const { description, vsock } = describeVsock({ name: 'vsock' });
  test.teardown(() => vsock.close());
  return { description, vsock };
}

/** A Unix socket's path is short: the test's own folder may lie too deep. */
function shortFolder(test: { teardown(end: () => void): void }): string {
  const folder = mkdtempSync(join(tmpdir(), 'vsock-'));
  test.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

t.test('describes the device', async (t) => {
  const { description } = device(t);
  t.equal(description.deviceId, 19);
  t.equal(description.features, 1n);
  t.same(description.queueSizes, [128, 128, 8]);
  t.same([...description.config], [3, 0, 0, 0, 0, 0, 0, 0]);
  const { description: other, vsock } = describeVsock({ name: 'vsock', cid: 0x0102_0304 });
  t.same([...other.config], [4, 3, 2, 1, 0, 0, 0, 0]);
  vsock.close();
});

t.test('refuses bad options, naming them', async (t) => {
  t.throws(() => describeVsock({ name: '' }), /vsock: name: expected 1 to 64 characters/);
  for (const cid of [0, 1, 2, 2.5, -1, 0xffff_ffff, Number.NaN]) {
    t.throws(
      () => describeVsock({ name: 'v', cid }),
      /vsock v: cid: expected a whole number from 3 to 4294967294/,
    );
  }
  const { vsock } = device(t);
  const nothing = (): void => {};
  for (const port of [-1, 0.5, 0xffff_ffff]) {
    const message = /vsock: port: expected a whole number from 0 to 4294967294/;
    t.throws(() => vsock.bindPort(port, { read: 0 }), message);
    t.throws(() => vsock.channel(port, { onLine: nothing }), message);
    t.throws(() => vsock.listen(port), message);
    t.throws(() => vsock.listenUnix(port, '/tmp/x'), message);
    await t.rejects(vsock.connect(port), message);
  }
  t.throws(() => vsock.bindPort(1, {}), /needs a descriptor to read, to write, or both/);
  t.throws(() => vsock.bindPort(1, { read: 1.5 }), /read: a descriptor/);
  t.throws(() => vsock.bindPort(1, { write: 99_999 }), /99999/);
  t.throws(() => vsock.channel(1, { onLine: nothing, maxLine: 0 }), /maxLine/);
  t.throws(() => vsock.channel(1, { onLine: nothing, maxLine: 1e9 }), /maxLine/);
  t.throws(() => vsock.listenUnix(1, ''), /expected the path of a Unix socket/);
  t.throws(() => vsock.listenUnix(1, 'a\0b'), /expected the path of a Unix socket/);
  t.throws(() => vsock.listenUnix(1, 'x'.repeat(108)), /at most 107 bytes, got 108/);
  t.throws(() => vsock.listenAll('x'.repeat(97)), /at most 96 bytes, got 97/);
});

t.test('a descriptor that is open for the other direction is refused', async (t) => {
  const { vsock } = device(t);
  const fd = openSync('/dev/null', 'r');
  t.throws(() => vsock.bindPort(1, { write: fd }), /not open for writing/);
  vsock.bindPort(1, { read: fd, closeFds: true }).close();
});

t.test('a port has one listener', async (t) => {
  const { vsock } = device(t);
  const listener = vsock.listen(80);
  t.throws(() => vsock.listenUnix(80, '/tmp/x'), /something listens to port 80 already/);
  listener.close();
  listener.close();
  const unix = vsock.listenUnix(80, '/tmp/x');
  t.throws(() => vsock.listen(80), /something listens to port 80 already/);
  unix.close();
  const again = vsock.listen(80);
  const iterator = again[Symbol.asyncIterator]();
  const next = iterator.next();
  again.close();
  t.same(await next, { value: undefined, done: true });
});

t.test('a host socket: made, refused where something is, removed', async (t) => {
  const folder = shortFolder(t);
  const path = join(folder, 's');
  const { vsock } = device(t);
  const socket = vsock.hostSocket(path);
  t.ok(existsSync(path));
  t.throws(() => vsock.hostSocket(path), /another process listens to this socket/);
  socket.close();
  socket.close();
  t.notOk(existsSync(path));
  writeFileSync(path, 'a file');
  t.throws(() => vsock.hostSocket(path), /there is a file that is not a socket/);
  t.throws(() => vsock.hostSocket(join(folder, 'no', 's')), /no\/s: bind: No such file or directory/);
});

t.test('opened to other programs by one path, or not at all', async (t) => {
  const folder = shortFolder(t);
  const path = join(folder, 's');
  const { vsock } = device(t);
  const open = vsock.open(path);
  t.ok(existsSync(path));
  open.close();
  t.notOk(existsSync(path));
  t.throws(() => vsock.open(`${folder}/${'x'.repeat(96)}`), /at most 96 bytes/);
  t.throws(() => vsock.open(join(folder, 'no', 's')), /^vsock: .*no\/s: bind: No such file or directory/);
});

t.test('a stream that fails before anybody has taken it is left out, and harms nobody', async (t) => {
  const queue = new StreamQueue();
  const [cut, good] = [new PassThrough(), new PassThrough()];
  queue.push(cut);
  queue.push(good);
  cut.destroy(new Error('reset'));
  await new Promise((resolve) => cut.once('close', resolve));
  t.equal((await queue.next()).value, good);
  t.equal(good.listenerCount('error'), 0);
  const late = queue.next();
  const third = new PassThrough();
  queue.push(third);
  t.equal((await late).value, third);
});

t.test('the end of the machine fails what waits and removes socket files', async (t) => {
  const path = join(shortFolder(t), 's');
  const { vsock } = device(t);
  vsock.hostSocket(path);
  const connection = vsock.connect(52);
  const listener = vsock.listen(1);
  const next = listener[Symbol.asyncIterator]().next();
  // Not before connect() has asked the device.
  await new Promise((resolve) => setImmediate(resolve));
  vsock.close();
  vsock.close();
  t.notOk(existsSync(path));
  await t.rejects(connection, { name: 'VsockError', code: 'ECONNRESET', message: /port 52 of the guest/ });
  t.same(await next, { value: undefined, done: true });
  t.throws(() => vsock.listen(2), /the machine has ended/);
  await t.rejects(vsock.connect(2), /the machine has ended/);
});
