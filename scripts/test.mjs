// npm test: sets up, compiles, and runs the tests tier by tier; the last line is `N passed, N failed`.
//
//   npm test -- [PATTERN...] [--tier TIER]... [--no-setup]
//
// Tiers: native (C++ core), sanitize (the same and test/kvm/hostile with ASan and UBSan; only on request), unit (needs
// nothing), kvm (micro-guests on any /dev/kvm), linux (Linux guests: hardware KVM or the testbed). A PATTERN is part of
// a test file's path, or of a doctest case's name. --no-setup takes what is built as it is (for the middle of some work).
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { inTestbed, kvmKind, root, runMain, SetupError, testbedReason } from './lib/host.mjs';
import { runFiles } from './lib/run-files.mjs';
import { step } from './lib/steps.mjs';
import { Tally, tapReporter } from './lib/tally.mjs';
import { setUp } from './setup.mjs';

const TIERS = ['native', 'sanitize', 'unit', 'kvm', 'linux'];
const DEFAULT_TIERS = ['native', 'unit', 'kvm', 'linux'];
/** How long one test file may take. */
const FILE_SECONDS = 180;
const TESTBED_FILE_SECONDS = 600;
const TESTBED_SECONDS = 3000;
/** Its memory: twenty machines at once, beside what engines keep on their tmpfs. */
const TESTBED_MIB = 6144;
/** How long it may say nothing. */
const TESTBED_SILENCE_MS = 400_000;
/** How often a file is run in the testbed before it counts as failed. */
const TESTBED_TRIES = 3;
const NATIVE_SECONDS = 300;

/** The compiled files of a tier's tests whose source's path contains one of the patterns. */
function filesOf(tier, patterns) {
  const folder = join('test', tier);
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join(folder, name))
    .filter((path) => patterns.length === 0 || patterns.some((pattern) => path.includes(pattern)))
    .sort()
    .map((path) => join(root, 'out/js', path.replace(/\.ts$/, '.js')));
}

/** The C++ core's tests, and those of the guest's agent, each a doctest program. */
async function runNative(name, { native = [], agent = [] }, patterns, tally) {
  await runDoctest(name, 'native', 'native_tests', native, patterns, tally);
  const options = ['-DTSVMM_AGENT_TESTS=ON', ...agent];
  await runDoctest(`${name}-agent`, 'guest/agent', 'agent_test', options, patterns, tally);
}

async function runDoctest(name, source, program, options, patterns, tally) {
  const folder = join('out/native-tests', name);
  const jobs = String(availableParallelism());
  await step(name, `C++ tests (${name})`, [
    ['cmake', '-S', source, '-B', folder, ...options],
    // The agent itself is static, which sanitizers are not for.
    ['cmake', '--build', folder, '--parallel', jobs, ...(source === 'native' ? [] : ['--target', program])],
  ]);
  const start = Date.now();
  const filter =
    patterns.length > 0 ? [`--test-case=${patterns.map((pattern) => `*${pattern}*`).join(',')}`] : [];
  const run = spawnSync(join(root, folder, program), ['--no-colors', ...filter], {
    cwd: root,
    encoding: 'utf8',
    timeout: NATIVE_SECONDS * 1000,
    killSignal: 'SIGKILL',
    maxBuffer: 1 << 28,
    env: { ...process.env, UBSAN_OPTIONS: 'print_stacktrace=1' },
  });
  const summary = /test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed/.exec(run.stdout ?? '');
  const result = {
    passed: Number(summary?.[1] ?? 0),
    failed: Number(summary?.[2] ?? 0),
    ms: Date.now() - start,
    details: [],
  };
  if (run.status !== 0 && result.failed === 0) {
    result.failed = 1;
    result.details.push(
      `${program} ended with ${run.error?.message ?? run.signal ?? `exit status ${run.status}`}`,
    );
  }
  if (result.failed > 0)
    result.details.push(...`${run.stdout}${run.stderr}`.trimEnd().split('\n').slice(-60));
  if (result.failed > 0 || result.passed > 0) tally.add(name, result);
}

/** The environment in which node takes the addon with sanitizers, which the tier's C++ tests were built with. */
function sanitized() {
  const library = spawnSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout.trim();
  return {
    TSVMM_ADDON: join(root, 'out/native-tests/sanitize/tsvmm.node'),
    LD_PRELOAD: library,
    // Node itself frees nothing at its end; a segmentation fault is V8's to handle first.
    ASAN_OPTIONS: 'detect_leaks=0',
    UBSAN_OPTIONS: 'print_stacktrace=1',
  };
}

/** Runs test files in one session of the testbed, their events coming back as lines of JSON. */
async function runInTestbed(files, reporter, env = {}) {
  // Inside, loading the 400 files of tap would cost each test file seconds: there (only) it is one file.
  const { buildSync } = await import('esbuild');
  const tap = 'node_modules/tap/dist/esm/index.js';
  buildSync({
    absWorkingDir: root,
    entryPoints: [tap],
    outfile: 'out/testbed/tap.js',
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    banner: { js: "import{createRequire as from}from'node:module';const require=from(import.meta.url);" },
  });
  // One processor a session, since with several the emulation has races (testbed/README.md), and as many sessions as the host has.
  const waiting = files.map((file) => ({ file, tries: TESTBED_TRIES }));
  const lists = Array.from({ length: Math.min(availableParallelism(), waiting.length) }, () => []);
  for (const [index, entry] of waiting.entries()) lists[index % lists.length].push(entry);
  const troubles = await Promise.all(lists.map((list) => sessions(list, tap, reporter, env)));
  return troubles.find((trouble) => trouble !== undefined);
}

/**
 * Runs files in the testbed, one after the other. Nested virtualisation in QEMU's emulation is not free of faults: it can take the testbed
 * down, or break a guest's processor. So what its end has cut off, or what has failed, is run again, in another session, and a line says so.
 */
async function sessions(list, tap, reporter, env) {
  let trouble;
  let left = list;
  while (left.length > 0) {
    const { started, ended, status } = await session(left, tap, env);
    trouble = status === 0 ? undefined : `the testbed's end (status ${status})`;
    const again = [];
    for (const entry of left) {
      const events = ended.get(entry.file);
      // One that had not begun when the testbed broke has not had its try, unless none had.
      if (started.has(entry.file) || started.size === 0) entry.tries--;
      const failed = events === undefined || events.at(-1).end !== 0;
      const name = relative(join(root, 'out/js'), entry.file);
      if (failed && entry.tries > 0) {
        console.log(
          `again  ${name}: ${events === undefined ? (trouble ?? 'was not run') : 'it failed, see below'}`,
        );
        for (const { out } of events ?? [])
          if (out !== undefined) process.stdout.write(out.replace(/^/gm, '  | '));
        again.push(entry);
      } else {
        for (const event of events ?? [{ file: entry.file, start: true }]) reporter.report(event);
      }
    }
    left = again;
  }
  return trouble;
}

/** One session of the testbed: the events of each file that came to its end there, and the session's exit status. */
async function session(list, tap, env) {
  const run = [
    'scripts/lib/run-files.mjs',
    '1',
    String(TESTBED_FILE_SECONDS),
    ...list.map(({ file }) => file),
  ];
  const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const [program, ...args] = inTestbed(
    ['bash', '-c', `cp out/testbed/tap.js ${tap} && exec env "$@"`, 'tests', ...assignments, 'node', ...run],
    ['-c', '1', '-m', String(TESTBED_MIB), '-t', String(TESTBED_SECONDS)],
  );
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  const open = new Map();
  const ended = new Map();
  // A testbed that hangs keeps no time limit inside.
  const silence = setTimeout(() => child.kill(), TESTBED_SILENCE_MS);
  for await (const line of createInterface({ input: child.stdout })) {
    silence.refresh();
    if (!line.startsWith('{')) {
      console.log(line);
      continue;
    }
    const event = JSON.parse(line);
    if (event.start) open.set(event.file, []);
    open.get(event.file)?.push(event);
    if (event.end === undefined) continue;
    ended.set(event.file, open.get(event.file));
    console.log(
      `  in the testbed: ${relative(join(root, 'out/js'), event.file)} ended after ${Math.round(event.ms / 1000)} s`,
    );
  }
  clearTimeout(silence);
  const status = child.exitCode ?? (await new Promise((resolve) => child.on('close', resolve)));
  return { started: new Set(open.keys()), ended, status };
}

async function main() {
  const { values, positionals: patterns } = parseArgs({
    allowPositionals: true,
    options: { tier: { type: 'string', multiple: true }, 'no-setup': { type: 'boolean' } },
  });
  const tiers = values.tier ?? DEFAULT_TIERS;
  for (const tier of tiers) {
    if (!TIERS.includes(tier)) throw new SetupError(`no tier '${tier}': there are ${TIERS.join(' ')}`);
  }

  // Where the files go: the tiers on the host, and what wants the testbed (with sanitizers: apart).
  const here = [];
  const testbed = [];
  const hostile = [];
  for (const tier of ['unit', 'kvm', 'linux', 'sanitize'].filter((tier) => tiers.includes(tier))) {
    const sanitizes = tier === 'sanitize';
    const files = sanitizes
      ? filesOf('kvm', patterns).filter((file) => file.includes('/hostile/'))
      : filesOf(tier, patterns);
    if (files.length === 0) continue;
    const reason = tier === 'unit' ? undefined : testbedReason();
    const away =
      reason !== undefined && (tier === 'linux' || kvmKind() === 'none' || process.env.TSVMM_TESTBED === '1');
    if (away) {
      console.log(`${tier} tests: ${reason}: in the testbed (an emulated machine, ten times slower)`);
      (sanitizes ? hostile : testbed).push(...files);
    } else {
      here.push({ tier, files });
    }
  }

  const parts = ['test'];
  const sessions = [testbed, hostile].filter((files) => files.length > 0).length;
  if (here.length + sessions > 0) parts.push('addon');
  const linux = tiers.includes('linux') && filesOf('linux', patterns).length > 0;
  if (linux) parts.push('guest');
  if (sessions > 0) parts.push('testbed');
  if (!values['no-setup']) await setUp(parts);

  const tally = new Tally();
  if (tiers.includes('native')) await runNative('native', {}, patterns, tally);
  if (tiers.includes('sanitize')) {
    const options = {
      native: ['-DSANITIZE=ON', '-DADDON=ON'],
      agent: ['-DCMAKE_BUILD_TYPE=Debug', '-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined'],
    };
    await runNative('sanitize', options, patterns, tally);
  }
  if (here.length + sessions > 0) {
    await step('compile', 'TypeScript', [
      [process.execPath, 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json'],
    ]);
    if (linux) {
      await step('guest-programs', "the guests' test programs", [
        ['cmake', '-S', 'test/linux/guest', '-B', 'out/guest-programs'],
        ['cmake', '--build', 'out/guest-programs', '--parallel', String(availableParallelism())],
      ]);
    }
    const reporter = await tapReporter(tally);
    for (const { tier, files } of here) {
      console.log(`${tier} tests:`);
      const env = tier === 'sanitize' ? sanitized() : {};
      await runFiles(files, { jobs: availableParallelism(), seconds: FILE_SECONDS, env }, reporter.report);
    }
    for (const files of [testbed, hostile]) {
      if (files.length === 0) continue;
      const trouble = await runInTestbed(files, reporter, files === hostile ? sanitized() : {});
      if (trouble !== undefined) {
        reporter.lost(trouble);
        tally.add('testbed', { failed: 1, ms: 0, details: [trouble] });
      }
    }
  }
  return tally.close();
}

await runMain('test', main);
