// Builds what a user runs: the native addon (build/Release/tsvmm.node) and the bundles (dist/). npm runs it on `npm ci`;
// a second run does only what has changed. Needs g++, cmake and make, and nothing from the network.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);

function filesUnder(path) {
  if (!existsSync(path)) return [];
  if (statSync(path).isFile()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => filesUnder(join(path, name)));
}

function hashOf(paths) {
  const hash = createHash('sha256').update(process.version);
  for (const file of paths.flatMap(filesUnder)) hash.update(`${file}\0`).update(readFileSync(file));
  return hash.digest('hex');
}

/** Does `work` unless `stamp` says that it has been done for the same inputs and `output` is there. */
function step(name, inputs, output, work) {
  const stamp = join('out/stamps', name);
  const hash = hashOf(inputs);
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  const start = Date.now();
  work();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, hash);
  console.log(`built the ${name} in ${((Date.now() - start) / 1000).toFixed(1)} s`);
}

function run(command, args) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  if (result.error || result.status !== 0) {
    process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
    console.error(
      `tsvmm: ${[command, ...args].join(' ')} failed${result.error ? `: ${result.error.message}` : ''}`,
    );
    process.exit(1);
  }
}

step('addon', ['native', 'CMakeLists.txt', 'package-lock.json'], 'build/Release/tsvmm.node', () => {
  const jobs = spawnSync('nproc', { encoding: 'utf8' }).stdout?.trim() || '2';
  run(process.execPath, ['node_modules/cmake-js/bin/cmake-js', 'compile', '--parallel', jobs]);
});

const { buildSync } = await import('esbuild');
step(
  'bundles',
  ['src', 'native/launch', 'scripts/build.mjs', 'package.json', 'package-lock.json'],
  'dist/tsvmm.cjs',
  () => {
    const common = {
      bundle: true,
      platform: 'node',
      target: 'node20',
      packages: 'external',
      logLevel: 'warning',
    };
    const cjs = { ...common, format: 'cjs', minify: true, keepNames: true, sourcemap: 'external' };
    // The commands as one function in one file of ASCII; src/cli/launch.ts runs it.
    buildSync({
      ...cjs,
      entryPoints: ['src/cli/main.ts'],
      outfile: 'dist/main.js',
      supported: { 'dynamic-import': false },
      define: { 'import.meta.url': '__url' },
      banner: {
        js: '(function(require,module,__filename,__dirname,keepCode){var __url="file://"+__filename;',
      },
      footer: { js: '})' },
    });
    buildSync({
      ...cjs,
      entryPoints: ['src/cli/launch.ts'],
      outfile: 'dist/tsvmm.cjs',
      banner: { js: '#!/usr/bin/env node' },
    });
    chmodSync('dist/tsvmm.cjs', 0o755);
    // Beside the script that it starts.
    rmSync('dist/tsvmm', { force: true });
    copyFileSync('build/Release/tsvmm-launch', 'dist/tsvmm');
    buildSync({
      ...common,
      entryPoints: ['src/index.ts'],
      outdir: 'dist',
      format: 'esm',
      splitting: true,
      sourcemap: true,
    });
  },
);
