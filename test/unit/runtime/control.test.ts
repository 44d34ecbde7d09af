// A sandbox's control socket with the program that stands for a process of exec; the guest is played here.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../src/addon/index.js';
import { UserError } from '../../../src/runtime/errors.js';
import { type ControlHandlers, ControlService } from '../../../src/runtime/sandbox/control.js';
import { closeAll, type ExecRequest, Execs } from '../../../src/runtime/sandbox/execs.js';
import { outcome } from '../../support/tsvmm.js';

const folder = mkdtempSync(join(tmpdir(), 'tsvmm-control-'));
t.teardown(() => rmSync(folder, { recursive: true }));

const none = () => Promise.reject(new UserError('not asked for here'));
const HANDLERS: ControlHandlers = {
  start: none,
  kill: none,
  pause: none,
  resume: none,
  update: none,
  processes: none,
  stats: none,
  stop: none,
  exec: none,
};

let sockets = 0;

function serve(handlers: Partial<ControlHandlers>): { path: string; service: ControlService } {
  const path = join(folder, `${++sockets}.sock`);
  return { path, service: new ControlService(path, { ...HANDLERS, ...handlers }) };
}

function start(path: string): ChildProcess {
  const request = join(folder, 'request');
  const params = { process: { args: ['true'] }, terminal: false, preserved: 0 };
  writeFileSync(request, JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'exec', params }));
  const fd = openSync(request, 'r');
  const child = spawn(join(packageRoot(), 'build/Release/tsvmm-exec'), [path], {
    stdio: ['ignore', 'pipe', 'pipe', fd],
  });
  closeSync(fd);
  return child;
}

const descriptors = () => readdirSync('/proc/self/fd').length;

t.test('signals, a late one among them, and the status', async () => {
  const signals: number[] = [];
  let end: (status: number) => void = () => {};
  const status = new Promise<number>((resolve) => {
    end = resolve;
  });
  let running: (fds: readonly number[]) => void = () => {};
  const ran = new Promise<readonly number[]>((resolve) => {
    running = resolve;
  });
  const { path, service } = serve({
    exec: async ({ fds }: ExecRequest) => {
      running(fds);
      return {
        pid: 7,
        status,
        signal: async (signal) => {
          signals.push(signal);
          // The process has ended meanwhile: there is nobody to signal.
          setImmediate(() => end(5));
          throw new UserError('no such process');
        },
        resize: async () => {},
      };
    },
  });
  const child = start(path);
  const ended = outcome(child);
  const fds = await ran;
  assert.equal(fds.length, 3);
  for (const fd of fds) assert.ok(fstatSync(fd));
  closeAll(fds);
  child.kill('SIGUSR1');
  // It waits for the answer, as the signal may come before.
  const { status: code, stderr } = await ended;
  assert.deepEqual([signals, code, stderr], [[10], 5, '']);
  service.close();
});

t.test('a refusal is told, and no descriptor is kept', async () => {
  const { path, service } = serve({
    exec: ({ fds }) => {
      closeAll(fds);
      return Promise.reject(new UserError('cannot exec in a paused container'));
    },
  });
  const before = descriptors();
  const { status, stderr } = await outcome(start(path));
  assert.deepEqual([status, stderr], [255, 'tsvmm: cannot exec in a paused container\n']);
  while (descriptors() > before) await new Promise((resolve) => setImmediate(resolve));
  service.close();
});

t.test('descriptors that are not open for their stream are left out, and closed', async () => {
  const ends: { read: number; write: number }[] = [];
  const asked: unknown[] = [];
  let cancelled = 0;
  const agent = {
    exec: async (params: object) => {
      asked.push(params);
      throw new UserError('no');
    },
    kill: async () => {},
    resize: async () => {},
  };
  const binder = {
    bind: (bound: { read: number; write: number }) => {
      ends.push(bound);
      const cancel = () => {
        cancelled++;
        for (const fd of new Set([bound.read, bound.write])) if (fd >= 0) closeSync(fd);
      };
      return { port: 2000 + ends.length, closed: Promise.resolve(), cancel };
    },
  };
  const execs = new Execs(agent, 'c', binder);
  const before = descriptors();
  const reading = openSync('/dev/null', 'r');
  const writing = openSync('/dev/null', 'w');
  const third = openSync('/dev/null', 'w');
  const both = openSync('/dev/null', 'r+');
  // In and out the wrong way round; one more for the process itself.
  await assert.rejects(
    execs.start({
      process: { args: ['true'], cwd: '/' },
      digits: new Map(),
      fds: [writing, reading, third, both],
      terminal: false,
      ignorePaused: false,
    }),
    /^Error: no$|no/,
  );
  assert.deepEqual(ends, [
    { read: -1, write: third },
    { read: both, write: both },
  ]);
  const [{ streams, preserved }] = asked as [{ streams: object; preserved: object[] }];
  assert.deepEqual(JSON.parse(JSON.stringify(streams)), { stderr: 2001 });
  assert.deepEqual(preserved, [{ port: 2002, access: 'both' }]);
  assert.deepEqual([cancelled, descriptors()], [2, before]);
});
