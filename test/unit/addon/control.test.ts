// The control socket's two sides, as Node's loop drives them: both ends in processes of their own where one waits for the other.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { addon, type NativeControlServer, packageRoot } from '../../../src/addon/index.js';

const folder = mkdtempSync(join(tmpdir(), 'tsvmm-control-'));
t.teardown(() => rmSync(folder, { recursive: true }));

interface Served {
  readonly path: string;
  readonly server: NativeControlServer;
  readonly lines: { id: number; line: string; fds: number[] }[];
  readonly ended: number[];
  readonly connected: number[];
}

let count = 0;
function serve(onLine?: (served: Served, id: number, line: string, fds: number[]) => void): Served {
  const path = join(folder, `${++count}.sock`);
  const served: Served = {
    path,
    lines: [],
    ended: [],
    connected: [],
    server: new (addon().ControlServer)(
      path,
      (id) => served.connected.push(id),
      (id, line, fds) => {
        served.lines.push({ id, line, fds });
        onLine?.(served, id, line, fds);
      },
      (id) => served.ended.push(id),
    ),
  };
  return served;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

function client(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path, () => resolve(socket));
    socket.on('error', reject);
  });
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.on('error', () => {});
    socket.once('close', () => resolve());
    socket.resume();
  });
}

/** A process that loads the addon as `addon` and runs `code`. */
function script(code: string): ChildProcess {
  const path = process.env.TSVMM_ADDON ?? join(packageRoot(), 'build/Release/tsvmm.node');
  return spawn(process.execPath, ['-e', `const addon = require(${JSON.stringify(path)});${code}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

async function outcome(child: ChildProcess): Promise<{ text: string; status: number | null }> {
  let text = '';
  child.stdout?.on('data', (data) => {
    text += data;
  });
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { text, status };
}

t.test('a request gets the first line of the answer', async () => {
  const { server, path, lines } = serve((served, id, line) => {
    served.server.send(id, `got ${line}`);
    served.server.send(id, 'more');
    served.server.close(id);
  });
  const request = { jsonrpc: '2.0', id: 1, method: 'kill', params: { signal: 'ü\u2028' } };
  const code = `console.log(addon.controlRequest(${JSON.stringify(path)}, ${JSON.stringify(JSON.stringify(request))}, 0))`;
  const { text } = await outcome(script(code));
  assert.equal(text, `got ${JSON.stringify(request)}\n`);
  assert.deepEqual(JSON.parse(lines[0]!.line), request);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  server.stop();
});

t.test('a request that nobody answers says why', async () => {
  const { controlRequest } = addon();
  assert.equal(controlRequest(join(folder, 'none.sock'), '{}', 1000), -2);
  const { server, path } = serve((served, id, line) => {
    if (line === 'close') served.server.close(id);
  });
  const ask = (line: string, limit: number) =>
    outcome(script(`console.log(addon.controlRequest(${JSON.stringify(path)}, '${line}', ${limit}))`));
  assert.equal((await ask('wait', 50)).text, '-110\n');
  assert.equal((await ask('close', 0)).text, '-104\n');
  server.stop();
  assert.equal(controlRequest(path, '{}', 1000), -111);
});

t.test('a path of any length', async () => {
  const deep = join(folder, 'x'.repeat(120));
  mkdirSync(deep);
  const path = join(deep, 'control.sock');
  const server = new (addon().ControlServer)(
    path,
    () => {},
    (id) => {
      server.send(id, 'yes');
      server.close(id);
    },
    () => {},
  );
  const { text } = await outcome(
    script(`console.log(addon.controlRequest(${JSON.stringify(path)}, 'x', 0))`),
  );
  assert.equal(text, 'yes\n');
  server.stop();
});

t.test('the socket cannot be made', async () => {
  assert.throws(
    () =>
      new (addon().ControlServer)(
        join(folder, 'no/such.sock'),
        () => {},
        () => {},
        () => {},
      ),
    {
      errno: -2,
      message: /control socket .*such\.sock: No such file/,
    },
  );
});

t.test('lines are told apart, however they arrive', async () => {
  const { server, path, lines, ended } = serve();
  const socket = await client(path);
  socket.write('one\ntw');
  await until(() => lines.length === 1);
  socket.write('o\n\nthree\n');
  await until(() => lines.length === 4);
  assert.deepEqual(
    lines.map(({ line }) => line),
    ['one', 'two', '', 'three'],
  );
  const large = 'x'.repeat(4 << 20);
  socket.write(`${large}\n`);
  await until(() => lines.length === 5);
  assert.ok(lines[4]!.line === large);
  socket.end('without an end');
  await until(() => ended.length === 1);
  assert.equal(lines.length, 5);
  server.stop();
});

t.test('a line without end, and a client that never reads, are cut off; others go on', async () => {
  const { server, path, lines, ended } = serve((served, id, line) => {
    if (line === 'hello') served.server.send(id, 'hello');
  });
  const honest = await client(path);
  const endless = await client(path);
  const gone = closed(endless);
  endless.write('y'.repeat((4 << 20) + 70000));
  await until(() => ended.length === 1);
  await gone;

  const deaf = await client(path);
  deaf.pause();
  deaf.write('x\n');
  await until(() => lines.length === 1);
  const { id } = lines[0]!;
  const part = 'z'.repeat(1 << 20);
  let result = 0;
  for (let i = 0; i < 20 && result === 0; i++) result = server.send(id, part);
  assert.equal(result, -105);
  await until(() => ended.length === 2);
  assert.equal(ended[1], id);
  assert.equal(server.send(id, 'x'), -2);
  deaf.destroy();

  const answer = new Promise<string>((resolve) => honest.once('data', (data) => resolve(String(data))));
  honest.write('hello\n');
  assert.equal(await answer, 'hello\n');
  honest.destroy();
  server.stop();
});

t.test('what was sent before close() arrives', async () => {
  const size = 6 << 20;
  const { server, path, connected, ended } = serve();
  const socket = await client(path);
  await until(() => connected.length === 1);
  assert.equal(server.send(connected[0]!, 'a'.repeat(size)), 0);
  server.close(connected[0]!);
  assert.equal(server.send(connected[0]!, 'late'), -2);
  let received = 0;
  socket.on('data', (data) => {
    received += data.length;
  });
  await new Promise((resolve) => socket.once('end', resolve));
  assert.equal(received, size + 1);
  assert.equal(ended.length, 0);
  server.stop();
});

t.test('a listener that throws is an uncaught exception, and the server goes on', async () => {
  const path = join(folder, 'throws.sock');
  const child = script(`
    const server = new addon.ControlServer(${JSON.stringify(path)}, () => {}, (id, line) => {
      if (line === 'end') { server.send(id, 'bye'); server.stop(); clearInterval(timer); return; }
      Promise.resolve().then(() => console.log('microtask'));
      throw new Error(line);
    }, () => {});
    process.on('uncaughtException', (error) => console.log('uncaught', error.message));
    const timer = setInterval(() => {}, 1000);
    console.log('ready');
  `);
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  const end = outcome(child);
  const socket = await client(path);
  socket.write('one\nend\n');
  assert.deepEqual(await end, { text: 'uncaught one\nmicrotask\n', status: 0 });
  socket.destroy();
});

t.test('a server does not keep its process alive, and ends with it', async () => {
  const path = join(folder, 'alone.sock');
  const make = `new addon.ControlServer(${JSON.stringify(path)}, () => {}, () => {}, () => {})`;
  assert.deepEqual(await outcome(script(`${make}; console.log('end')`)), { text: 'end\n', status: 0 });
  rmSync(path);
  assert.deepEqual(await outcome(script(`${make}; process.exit(3)`)), { text: '', status: 3 });
  rmSync(path);
  // A worker's loop must be without handles at its end.
  const file = JSON.stringify(process.env.TSVMM_ADDON ?? join(packageRoot(), 'build/Release/tsvmm.node'));
  const worker = JSON.stringify(`const addon = require(${file}); ${make}`);
  const code = `new (require('worker_threads').Worker)(${worker}, { eval: true }).on('exit', (s) => console.log('worker', s))`;
  assert.deepEqual(await outcome(script(code)), { text: 'worker 0\n', status: 0 });
});

t.test('a stream delivers lines until the other side closes', async () => {
  const { server, path } = serve((served, id) => {
    for (let i = 0; i < 1000; i++) served.server.send(id, `event ${i}`);
    served.server.close(id);
  });
  const lines: string[] = [];
  await new Promise<void>((resolve, reject) => {
    const stream = addon().controlStream(path, 'events', (line) => lines.push(line), resolve);
    if (typeof stream === 'number') reject(new Error(String(stream)));
  });
  assert.equal(lines.length, 1000);
  assert.equal(lines[999], 'event 999');
  server.stop();
});

t.test('a stream that is closed says nothing more', async () => {
  const { server, path, ended } = serve((served, id) => {
    served.server.send(id, 'one\ntwo');
  });
  const lines: string[] = [];
  const stream = addon().controlStream(
    path,
    'events',
    (line) => {
      lines.push(line);
      assert.ok(typeof stream === 'object');
      stream.close();
      stream.close();
    },
    () => lines.push('end'),
  );
  await until(() => ended.length === 1);
  assert.deepEqual(lines, ['one']);
  server.stop();
  assert.equal(
    addon().controlStream(
      path,
      'x',
      () => {},
      () => {},
    ),
    -111,
  );
});

t.test('a pty, and its master handed over', async () => {
  const { openPty, sendFd } = addon();
  const pty = openPty(24, 80);
  assert.ok(typeof pty === 'object');
  const { isatty } = await import('node:tty');
  assert.ok(isatty(pty.slave) && isatty(pty.master));
  // What conmon and podman listen with is played by the server: descriptors along with a line.
  const { server, path, lines, ended } = serve();
  assert.equal(sendFd(path, pty.master, '/dev/pts/ptmx\n'), 0);
  await until(() => lines.length === 1 && ended.length === 1);
  assert.equal(lines[0]!.line, '/dev/pts/ptmx');
  assert.equal(lines[0]!.fds.length, 1);
  assert.equal(fstatSync(lines[0]!.fds[0]!).rdev, fstatSync(pty.master).rdev);
  for (const fd of [...lines[0]!.fds, pty.master, pty.slave]) closeSync(fd);
  server.stop();
  assert.equal(sendFd(path, 0, 'x'), -111);
});
