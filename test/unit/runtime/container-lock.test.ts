import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { lockContainerId, stateRoot } from '../../../src/runtime/container-lock.js';

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
    message: 'container "demo" exists already: a process of this user runs it',
  });
  lockContainerId(root, 'other');
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  lockContainerId(root, 'demo');
  t.same(readdirSync(root), ['lock'], 'one file for all');
});

t.test('the folder of the state', async (t) => {
  t.equal(stateRoot({}, 0), '/run/tsvmm');
  t.equal(stateRoot({ XDG_RUNTIME_DIR: '/run/user/7' }, 7), '/run/user/7/tsvmm');
  t.equal(stateRoot({}, 7), '/tmp/tsvmm-7');
  t.throws(() => lockContainerId('/dev/null/none', 'x'), { message: /^\/dev\/null\/none\/lock: / });
});
