// npm run fuzz: looks for inputs that break a parser of what a guest or a user supplies, by libFuzzer.
//
//   npm run fuzz -- [TARGET...] [--seconds N] [--keep] [--no-setup] [-- LIBFUZZER-ARGUMENT...]
//
// Without a TARGET each of them in turn. --seconds: for each target, 60 by default. It begins with the inputs of fuzz/corpus/TARGET and
// collects more in out/fuzz/corpus/TARGET; --keep adds what is new of these to fuzz/corpus. An input that breaks something is
// left in out/fuzz/crashes, and its name printed: npm run fuzz -- TARGET -- FILE plays it alone.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { root, runMain, SetupError } from './lib/host.mjs';
import { step } from './lib/steps.mjs';
import { Tally } from './lib/tally.mjs';
import { setUp } from './setup.mjs';

/** A larger input finds nothing that a smaller one does not, and slows everything down. */
const MAX_LENGTH = 4096;
/** What one input may take, in seconds; more is a hang. */
const INPUT_SECONDS = 20;

const NATIVE = readdirSync(join(root, 'fuzz/targets')).map((file) => basename(file, '.cc'));
const JAVASCRIPT = ['bzimage', 'elf', 'lz4'];
const TARGETS = [...NATIVE, ...JAVASCRIPT].sort();

/** Builds the targets; the first time takes some minutes. */
async function build() {
  await setUp(['test', 'fuzz', 'npm']);
  await step('fuzz', 'fuzz targets', [
    ['cmake', '-S', 'fuzz', '-B', 'out/fuzz', '-DCMAKE_CXX_COMPILER=clang++'],
    ['cmake', '--build', 'out/fuzz', '--parallel', String(availableParallelism())],
    [process.execPath, 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json'],
  ]);
}

function commandOf(target) {
  return JAVASCRIPT.includes(target)
    ? [process.execPath, join(root, 'fuzz/javascript/run.mjs'), target]
    : [join(root, 'out/fuzz', `fuzz_${target}`)];
}

function folders(target) {
  const found = join(root, 'out/fuzz/corpus', target);
  const kept = join(root, 'fuzz/corpus', target);
  for (const folder of [found, kept]) mkdirSync(folder, { recursive: true });
  return { found, kept };
}

function run(target, args, seconds) {
  const [program, ...first] = commandOf(target);
  const memory = '/dev/shm';
  return spawnSync(program, [...first, ...args], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: (seconds + INPUT_SECONDS + 60) * 1000,
    killSignal: 'SIGKILL',
    // The file system's target makes and removes a folder for each input.
    env: {
      ...process.env,
      TMPDIR: existsSync(memory) ? memory : tmpdir(),
      ASAN_OPTIONS: 'detect_leaks=1:allocator_may_return_null=1',
      UBSAN_OPTIONS: 'print_stacktrace=1',
    },
  });
}

function fuzz(target, seconds, more, tally) {
  const start = Date.now();
  const { found, kept } = folders(target);
  const crashes = join(root, 'out/fuzz/crashes');
  mkdirSync(crashes, { recursive: true });
  const dictionary = join(root, 'fuzz/dictionaries', target);
  const result = run(
    target,
    [
      `-max_total_time=${seconds}`,
      `-max_len=${MAX_LENGTH}`,
      `-timeout=${INPUT_SECONDS}`,
      `-artifact_prefix=${crashes}/${target}-`,
      '-print_final_stats=1',
      ...(existsSync(dictionary) ? [`-dict=${dictionary}`] : []),
      ...more,
      found,
      kept,
    ],
    seconds,
  );
  const runs = /number_of_executed_units: (\d+)/.exec(result.stderr)?.[1] ?? '0';
  const failed = result.status !== 0 || Number(runs) === 0;
  tally.add(`${target} (${runs} inputs)`, {
    passed: failed ? 0 : 1,
    failed: failed ? 1 : 0,
    ms: Date.now() - start,
    details: failed ? [result.stderr.slice(-6000), `it ended with ${result.signal ?? result.status}`] : [],
  });
}

/** Plays single inputs, with all that the target prints. */
function play(target, files) {
  const result = run(target, files, INPUT_SECONDS * files.length);
  process.stdout.write(`${result.stdout}${result.stderr}`);
  return result.status ?? 1;
}

/** Adds to the committed corpus what reaches code that it does not reach yet. */
function keep(target) {
  const { found, kept } = folders(target);
  const before = readdirSync(kept).length;
  if (JAVASCRIPT.includes(target)) {
    // libFuzzer merges in processes of its own, which Node is not: what it found is taken as it is.
    for (const name of readdirSync(found)) copyFileSync(join(found, name), join(kept, name));
    console.log(`${target}: ${readdirSync(kept).length - before} inputs more in ${relative(root, kept)}`);
    return;
  }
  const result = run(target, ['-merge=1', `-max_len=${MAX_LENGTH}`, kept, found], 600);
  if (result.status !== 0) throw new SetupError(`${target}: merging failed\n${result.stderr.slice(-2000)}`);
  console.log(`${target}: ${readdirSync(kept).length - before} inputs more in ${relative(root, kept)}`);
}

await runMain('fuzz', async () => {
  const at = process.argv.indexOf('--', 2);
  const own = process.argv.slice(2, at < 0 ? undefined : at);
  const more = at < 0 ? [] : process.argv.slice(at + 1);
  const { values, positionals } = parseArgs({
    args: own,
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '60' },
      keep: { type: 'boolean' },
      'no-setup': { type: 'boolean' },
    },
  });
  for (const target of positionals) {
    if (!TARGETS.includes(target)) {
      throw new SetupError(`no target ${JSON.stringify(target)}: there are ${TARGETS.join(' ')}`);
    }
  }
  const seconds = Number(values.seconds);
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 86400) {
    throw new SetupError(`--seconds: expected a whole number from 1 to 86400, got ${values.seconds}`);
  }
  if (!values['no-setup']) await build();
  const targets = positionals.length > 0 ? positionals : TARGETS;
  const files = more.filter((argument) => !argument.startsWith('-'));
  if (files.length > 0) return play(targets[0], more);
  const tally = new Tally();
  for (const target of targets) {
    fuzz(target, seconds, more, tally);
    if (values.keep) keep(target);
  }
  return tally.close();
});
