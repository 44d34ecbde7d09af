// npm run lint: the checks that need no test; each counts as one.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { root, runMain } from './lib/host.mjs';
import { Tally } from './lib/tally.mjs';
import { setUp } from './setup.mjs';

const tracked = (...patterns) =>
  spawnSync('git', ['ls-files', ...patterns], { cwd: root, encoding: 'utf8' })
    .stdout.split('\n')
    .filter((path) => path !== '' && existsSync(path));

await runMain('lint', async () => {
  process.chdir(root);
  await setUp(['npm', 'lint']);
  const bin = (name) => `node_modules/.bin/${name}`;
  const native = tracked('*.cc', '*.h');
  const shell = tracked('*.sh', '.ci/run', 'testbed/testbed');
  const checks = [
    ['biome', bin('biome'), 'check', '--max-diagnostics=50', '.'],
    ['layers', bin('depcruise'), '--config', '.dependency-cruiser.cjs', 'src'],
    ['unused', bin('knip')],
    ['clang-format', 'clang-format', '--dry-run', '-Werror', ...native],
    ['shell syntax', 'bash', '-c', 'for f; do bash -n "$f" || exit 1; done', 'bash', ...shell],
  ];
  const tally = new Tally();
  for (const [name, program, ...args] of checks) {
    const start = Date.now();
    const run = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
    const ms = Date.now() - start;
    if (run.status === 0) tally.add(name, { passed: 1, ms });
    else {
      const output = run.error?.message ?? `${run.stdout}${run.stderr}`;
      tally.add(name, { failed: 1, ms, details: output.trimEnd().split('\n').slice(-120) });
    }
  }
  return tally.close();
});
