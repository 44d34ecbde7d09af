// npm run demo: sets everything up, then runs a container in a microVM and passes its exit status on.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { inTestbed, root, runHere, runMain, SetupError, testbedReason } from './lib/host.mjs';
import { setUp } from './setup.mjs';

/** The bundle of examples/bundles/hello with a busybox root file system; returns its folder. */
function makeBundle() {
  const bundle = join(root, 'out/demo/hello');
  mkdirSync(bundle, { recursive: true });
  copyFileSync(join(root, 'examples/bundles/hello/config.json'), join(bundle, 'config.json'));
  const rootfs = join(bundle, 'rootfs');
  if (!existsSync(join(rootfs, 'bin/sh'))) {
    const made = spawnSync('bash', [join(root, 'guest/rootfs/make.sh'), rootfs], { encoding: 'utf8' });
    if (made.status !== 0) throw new SetupError(`cannot make the demo's root file system\n${made.stderr}`);
  }
  return bundle;
}

await runMain('demo', async () => {
  const reason = testbedReason();
  await setUp(['addon', 'guest', ...(reason === undefined ? [] : ['testbed'])]);
  const bundle = relative(root, makeBundle());
  const command = ['node', 'dist/tsvmm.cjs', 'run', '--bundle', bundle];
  if (reason !== undefined)
    console.log(
      `demo: ${reason}: the microVM runs inside the testbed (an emulated machine, ten times slower)`,
    );
  console.log(`demo: ${command.join(' ')}\n`);
  return runHere(reason === undefined ? command : inTestbed(command, ['-t', '300']));
});
