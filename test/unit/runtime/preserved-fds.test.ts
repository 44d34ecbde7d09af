import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import t from 'tap';

const module = new URL('../../../src/runtime/preserved-fds.js', import.meta.url).href;

/** What a function of the module says in a process that was started by a shell with such redirections. */
function inShell(redirections: string, expression: string, env: Record<string, string> = {}): string {
  const script = `import * as fds from ${JSON.stringify(module)};
    try { console.log(JSON.stringify(${expression})); } catch (error) { console.log(error.message); }`;
  const run = `exec "$0" --input-type=module -e "$1" ${redirections}`;
  const held = openSync('/dev/null', 'r');
  const { stdout } = spawnSync('bash', ['-c', run, process.execPath, script], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit', held],
  });
  closeSync(held);
  return stdout.trim();
}

t.test('what was inherited is told from what Node has opened', async (t) => {
  t.equal(inShell('3</etc/passwd 4>/dev/null', 'fds.preservedFds(2)'), '[3,4]');
  t.equal(inShell('3</etc/passwd 4> >(cat)', 'fds.preservedFds(2)'), '[3,4]', 'one end of a pipe');
  t.match(inShell('3</etc/passwd 4>&-', 'fds.preservedFds(2)'), /descriptor 4 is not open/);
  t.match(inShell('3>&-', 'fds.preservedFds(1)'), /descriptor 3 is not open/);
});

t.test("a container's may have gaps", async (t) => {
  t.equal(inShell('3>&- 5</etc/passwd', 'fds.inheritedFds(9)'), '[-1,-1,5]');
  t.equal(inShell('3>&-', 'fds.inheritedFds(9)'), '[]');
  t.equal(inShell('4>&-', 'fds.inheritedFds(0)', { LISTEN_FDS: '1' }), '[3]', "systemd's come first");
  t.equal(inShell('', 'fds.listenVariables()', { LISTEN_FDS: '1' }), '["LISTEN_FDS=1","LISTEN_PID=1"]');
  t.equal(inShell('', 'fds.listenVariables()', { LISTEN_FDS: 'x' }), '[]');
});
