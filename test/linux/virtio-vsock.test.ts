import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { writeCpio } from '../../src/boot/cpio.js';
import { Machine } from '../../src/machine/machine.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { outcome, start, waitFor } from '../support/tsvmm.js';

// Each boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const MIB = 1 << 20;
const SOURCE = join(packageRoot(), 'test/linux/guest/vsock-exercise.cc');
const { kernel } = guestFiles({});

/** A Unix socket's path is short: the test's own folder may lie too deep. */
function shortFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vsock-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

const images = mkdtempSync(join(tmpdir(), 'vsock-'));
t.teardown(() => rmSync(images, { recursive: true }));
const initrd = join(images, 'initramfs.cpio');
execFileSync('g++', ['-std=c++20', '-O0', '-static', SOURCE, '-o', join(images, 'init')]);
writeFileSync(
  initrd,
  writeCpio([
    { path: 'dev', mode: 0o040755 },
    { path: 'dev/console', mode: 0o020600, device: [5, 1] },
    { path: 'init', mode: 0o100755, data: readFileSync(join(images, 'init')) },
  ]),
);

/** As the guest's patternAt(). */
function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++)
    bytes[i] = ((Math.imul(i, 2654435761) + Math.imul(seed, 40503)) >>> 13) & 255;
  return bytes;
}

async function listen(t: Test, path: string, serve: (socket: net.Socket) => void): Promise<void> {
  const server = net.createServer({ allowHalfOpen: true }, serve);
  server.listen({ path, backlog: 2048 });
  t.teardown(() => server.close());
  await once(server, 'listening');
}

/** Gives back each byte changed, and the end. */
function giveBack(socket: net.Socket): void {
  socket.on('data', (chunk: Buffer) => {
    for (let i = 0; i < chunk.length; i++) chunk[i] = (chunk[i] ?? 0) ^ 0x5a;
    socket.write(chunk);
  });
  socket.on('end', () => socket.end());
}

async function readAll(stream: Duplex): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString('latin1');
}

/** A program that listens and never reads. */
async function deafPeer(t: Test, path: string): Promise<ChildProcess> {
  const program = `require('net').createServer((s) => s.pause()).listen(process.argv[1], () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', program, path]);
  t.teardown(() => child.kill('SIGKILL'));
  await waitFor(child.stdout, 'up');
  return child;
}

t.test('a thousand connections to Unix sockets, and programs that reach the guest', async (t) => {
  const folder = shortFolder(t);
  const path = join(folder, 'v');
  let connections = 0;
  await listen(t, `${path}_5000`, (socket) => {
    connections++;
    giveBack(socket);
  });
  const control = new Promise<net.Socket>((resolve) => {
    void listen(t, `${path}_5003`, resolve);
  });
  const deaf = await deafPeer(t, `${path}_5002`);
  const child = start([
    ...['boot', kernel, '--initrd', initrd, '--append', 'quiet exercise=unix'],
    ...['--memory', '256M', '--vsock', path],
  ]);
  const ended = outcome(child);
  await waitFor(child.stdout, 'kill it');
  t.equal(connections, 1100);
  deaf.kill('SIGKILL');
  await waitFor(child.stdout, 'listening');

  const echoed = net.connect({ path, allowHalfOpen: true });
  echoed.end('CONNECT 7000\nthere and back');
  t.match(await readAll(echoed), /^OK \d+\nthere and back$/);
  const refused = net.connect(path);
  refused.write('CONNECT 7001\n');
  t.equal(await readAll(refused), '', 'nobody listens there: hung up');

  (await control).end('.');
  const { status, stdout, stderr } = await ended;
  t.equal(status, 0);
  t.match(stdout, 'refused: ECONNRESET');
  t.match(stdout, '1000 connections, 1000 at once');
  t.match(stdout, 'killed: EPIPE');
  t.match(stdout, 'done');
  t.match(stderr, `tsvmm: vsock: port 5001: ${path}_5001: No such file or directory\n`);
  t.match(stderr, "tsvmm: vsock: port 5002: the host's end is gone without having read everything\n");
});

t.test('streams of Node.js to and from the guest', async (t) => {
  const machine = await Machine.create({
    memory: 128 * MIB,
    cpus: 1,
    kernel: { path: kernel, initrd, commandLine: 'quiet exercise=streams' },
    vsock: {},
  });
  t.teardown(() => machine.close());
  const { vsock } = machine;
  const first = async (port: number): Promise<Duplex> => {
    for await (const stream of vsock.listen(port)) return stream;
    throw new Error('no connection');
  };
  const slow = first(5000);
  const control = first(5003);
  const output = first(5004);
  const bye = first(5005);
  machine.start();
  const lines = await output;
  lines.on('error', () => {}); // its end is a restore's
  const held = Number((await waitFor(lines as net.Socket, 'held back')).match(/after (\d+)/)?.[1]);
  t.ok(held < 2 * MIB, `a reader that does not read holds the guest back (after ${held} bytes)`);
  const reader = await slow;
  t.ok(pattern(7, 8 * MIB).toString('latin1') === (await readAll(reader)), 'it gets every byte');
  const said = waitFor(lines as net.Socket, 'slow reader: end');
  reader.end();
  await said;

  const unread = await vsock.connect(7002);
  unread.on('error', () => {});
  t.notOk(unread.write(Buffer.alloc(16 * MIB)), 'what the guest does not read is held back');
  const echo = await vsock.connect(7000);
  echo.end('half-closed');
  t.equal(await readAll(echo), 'half-closed', 'others go on, and reading after end()');
  t.ok(unread.writableLength > 14 * MIB, 'and stays where it is');
  await t.rejects(vsock.connect(7001), { code: 'ECONNREFUSED' });
  const cut = waitFor(lines as net.Socket, 'unread: EPIPE');
  unread.destroy();
  (await control).on('error', () => {}).write('.');
  await cut;

  // Paused and resumed, a connection goes on.
  const kept = await vsock.connect(7000);
  await machine.pause();
  kept.write('meanwhile');
  await machine.resume();
  const [answer] = await once(kept, 'data');
  t.equal(String(answer), 'meanwhile');

  // Restored, it is gone.
  const reset = once(kept, 'error');
  await machine.pause();
  await machine.restore(await machine.save());
  await machine.resume();
  t.match((await reset)[0], { code: 'ECONNRESET' });
  const silent = machine.wait().then(() => {
    throw new Error('the guest has ended without a word');
  });
  const last = await Promise.race([bye, silent]);
  last.on('error', () => {}); // it ends with the guest
  t.equal(String((await once(last, 'data'))[0]), 'done\n', 'the guest knows, and connects again');
  last.end();
  t.equal((await machine.wait()).reason, 'power-off');
});
