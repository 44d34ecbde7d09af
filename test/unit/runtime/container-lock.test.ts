import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { lockContainerId, type StateHost, stateRoot } from '../../../src/runtime/container-lock.js';

t.test('an ID has one holder, and a killed one holds nothing', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'tsvmm-lock-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  const module = new URL('../../../src/runtime/container-lock.js', import.meta.url);
  const holder = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `const { lockContainerId } = await import(${JSON.stringify(module.href)});
       lockContainerId(${JSON.stringify(root)}, 'demo');
       console.log('held');
       setInterval(() => {}, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(holder.stdout, 'data');
  t.throws(() => lockContainerId(root, 'demo'), {
    message: 'container with given ID already exists: demo',
  });
  lockContainerId(root, 'other');
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  lockContainerId(root, 'demo');
  t.same(readdirSync(root), ['lock'], 'one file for all');
});

t.test('the folder of the state', async (t) => {
  const owners: Record<string, number> = {};
  const host = (uid: number, outside?: number, taken?: number): StateHost => ({
    uid,
    outsideUid: () => outside,
    ownerOf: (path) => owners[path],
    makeFolder: (path) => {
      owners[path] = taken ?? uid;
    },
  });
  const XDG_RUNTIME_DIR = '/run/user/7';
  t.equal(stateRoot({}, host(0)), '/run/tsvmm');
  t.equal(stateRoot({ XDG_RUNTIME_DIR }, host(0)), '/run/tsvmm', 'root has one place');
  t.equal(stateRoot({ XDG_RUNTIME_DIR }, host(0, 7)), '/run/user/7/tsvmm', 'podman, rootless');
  t.equal(stateRoot({ XDG_RUNTIME_DIR, USER: 'me' }, host(0, 7)), '/run/user/7/tsvmm');
  t.equal(stateRoot({ XDG_RUNTIME_DIR, USER: 'root' }, host(0, 7)), '/run/tsvmm', 'root of a container');
  t.equal(stateRoot({}, host(0, 7)), '/run/tsvmm', 'a service of a container');
  t.equal(stateRoot({ USER: 'me' }, host(0, 7)), '/tmp/tsvmm-7', 'the same as outside');
  t.equal(stateRoot({ XDG_RUNTIME_DIR }, host(7)), '/run/user/7/tsvmm');
  t.equal(stateRoot({ XDG_RUNTIME_DIR: 'here' }, host(7)), '/tmp/tsvmm-7', 'a relative one does not count');
  owners['/run/user/7'] = 7;
  t.equal(stateRoot({}, host(7)), '/run/user/7/tsvmm');
  owners['/run/user/7'] = 0;
  t.equal(stateRoot({ USER: 'me' }, host(0, 7)), '/run/user/7/tsvmm');
  t.throws(() => stateRoot({}, host(8, undefined, 7)), {
    message: "/tmp/tsvmm-8 is somebody else's: set XDG_RUNTIME_DIR to a folder of yours, or use --root",
  });
  t.throws(() => lockContainerId('/dev/null/none', 'x'), { message: /^\/dev\/null\/none\/lock: / });
});
