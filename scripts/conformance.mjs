// npm run conformance: runs the test suites of runc and crun, as Debian's source packages have them, against tsvmm.
//
//   npm run conformance -- [--suite runc|crun] [--runtime PATH] [--jobs N] [--tries N] [--no-setup] [FILE[:CASE]...]
//
// FILE is part of the name of a suite's file, CASE a regular expression for names of cases in it. --runtime: another runtime (runc or crun
// themselves, for comparison). --jobs: sessions at the same time (default: one for each processor). --tries: how often a case is run before it
// counts as failed (default 2 in the testbed, whose emulation is not free of faults, else 1).
//
// A case passes, fails, is skipped by the suite itself, or is not applicable: it fails and is listed, with the reason, in
// test/conformance/not-applicable.json. The exit status is 0 if no case failed. What each file printed, and results.json, are in out/conformance.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runSession } from './lib/conformance-session.mjs';
import { root, runMain, SetupError, testbedReason } from './lib/host.mjs';
import { step } from './lib/steps.mjs';
import { setUp } from './setup.mjs';

const SUITES = {
  runc: { tests: 'runc/tests/integration', isTest: (name) => name.endsWith('.bats') },
  crun: { tests: 'crun/tests', isTest: (name) => /^test_.*\.py$/.test(name) },
};
/** About how many cases a session has: what is lost where the testbed breaks. */
const SESSION_CASES = 16;
const SESSION_SECONDS = 3000;
const CASE_SECONDS = 60;
const TESTBED_CASE_SECONDS = 240;
/** How many lines of a failed case's output are shown. */
const SHOWN = 12;

const listPath = join(root, 'test/conformance/not-applicable.json');

/** Where the suites are, fetched and built the first time; kept for all clones. */
async function suites() {
  const recipe = join(root, 'test/conformance/fetch.sh');
  const key = createHash('sha256').update(readFileSync(recipe)).digest('hex').slice(0, 16);
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tsvmm/conformance');
  const folder = join(cache, key);
  if (!existsSync(folder)) {
    mkdirSync(cache, { recursive: true });
    await step('conformance', "runc's and crun's test suites", [
      ['flock', join(cache, 'lock'), 'bash', recipe, folder],
    ]);
  }
  return folder;
}

/** The runtime's path: of a name without a slash, the one on PATH. */
function runtimePath(name) {
  const found = name.includes('/')
    ? resolve(name)
    : (process.env.PATH ?? '')
        .split(':')
        .map((folder) => join(folder, name))
        .find((path) => existsSync(path));
  try {
    accessSync(found ?? '', constants.X_OK);
  } catch {
    throw new SetupError(`--runtime ${name}: no such program`);
  }
  return found;
}

/** A regular expression, of bash and of Python, that matches just these names. */
function exactly(names) {
  return `^(${names.map((name) => name.replace(/[\\^$.|?*+()[\]{}]/g, '\\$&')).join('|')})$`;
}

/** The files of a suite that the patterns select, with how many cases each has, the largest first. */
function workOf(suite, folder, patterns) {
  const tests = join(folder, SUITES[suite].tests);
  const work = [];
  for (const file of readdirSync(tests).filter(SUITES[suite].isTest)) {
    // The whole name of a file is that file; a part may be of several.
    const selected = patterns.filter(({ part }) =>
      SUITES[suite].isTest(part) ? file === part : file.includes(part),
    );
    if (patterns.length > 0 && selected.length === 0) continue;
    const size = readFileSync(join(tests, file), 'utf8').match(/^(@test |def test_)/gm)?.length ?? 1;
    const pattern = selected.some((one) => one.pattern === '')
      ? ''
      : selected.map((one) => one.pattern).join('|');
    work.push({ file, pattern, size });
  }
  return work.sort((a, b) => b.size - a.size);
}

/** Files by sessions. */
function sessionsOf(work) {
  const sessions = [];
  for (const item of work) {
    const place = sessions.find((session) => session.size + item.size <= SESSION_CASES);
    if (place === undefined) sessions.push({ size: item.size, items: [item] });
    else {
      place.size += item.size;
      place.items.push(item);
    }
  }
  return sessions.map(({ items }) => items);
}

/** The list of cases that are not applicable: a map from `FILE: CASE` to the reason. */
function notApplicable(suite) {
  const listed = new Map();
  for (const { reason, cases } of JSON.parse(readFileSync(listPath, 'utf8'))[suite]) {
    for (const [file, names] of Object.entries(cases)) {
      for (const name of names) listed.set(`${file}: ${name}`, reason);
    }
  }
  return listed;
}

/** Runs a suite and returns its cases, each with a verdict. */
async function runSuite(suite, options, patterns) {
  const { folder, jobs, tries } = options;
  const listed = options.own ? notApplicable(suite) : new Map();
  const logs = join(root, 'out/conformance', basename(options.runtime), suite);
  mkdirSync(logs, { recursive: true });
  const cases = new Map();
  let waiting = workOf(suite, folder, patterns).map((item) => ({ ...item, left: tries }));
  while (waiting.length > 0) {
    const queue = sessionsOf(waiting);
    const again = [];
    const worker = async () => {
      for (let items = queue.shift(); items !== undefined; items = queue.shift()) {
        const missing = new Set(items);
        const { status, errors } = await runSession({ suite, ...options }, items, (result) => {
          const item = items.find(({ file }) => file === result.file);
          missing.delete(item);
          const log = join(logs, `${result.file}${item.left < tries ? `.${tries - item.left + 1}` : ''}.log`);
          writeFileSync(log, `${result.lines.join('\n')}\n`);
          const retry = take(suite, cases, listed, item, result, log);
          if (retry !== undefined) again.push(retry);
        });
        for (const item of missing) {
          console.log(
            `${item.left > 1 ? 'again' : 'not ok'}  ${suite}/${item.file}: not run, the session ended with ${status} ${errors.trim()}`,
          );
          if (item.left > 1) again.push({ ...item, left: item.left - 1 });
          else cases.set(item.file, { file: item.file, name: '(the file)', verdict: 'failed', output: [] });
        }
      }
    };
    await Promise.all(Array.from({ length: jobs }, worker));
    waiting = again;
  }
  if (patterns.length === 0) checkList(cases, listed);
  return [...cases.values()];
}

/** Takes the cases of a file that has been run, and says so; the work that is to be run again, if any. */
function take(suite, cases, listed, item, result, log) {
  const counts = { passed: 0, failed: 0, 'not applicable': 0, skipped: 0 };
  const failed = [];
  for (const one of result.cases) {
    const key = `${one.file}: ${one.name}`;
    const reason = listed.get(key);
    if (one.verdict === 'failed' && reason !== undefined)
      Object.assign(one, { verdict: 'not applicable', reason });
    if (one.verdict === 'passed' && reason !== undefined) one.listed = true;
    if (one.verdict === 'failed') failed.push(one);
    counts[one.verdict]++;
    cases.set(key, one);
  }
  const lost = !result.ended || result.cases.length < result.cases.planned;
  const texts = Object.entries(counts).flatMap(([name, count]) => (count > 0 ? [`${count} ${name}`] : []));
  if (lost) texts.push(`ended after ${result.cases.length} of ${result.cases.planned || 'its'} cases`);
  console.log(`${failed.length > 0 || lost ? 'not ok' : 'ok'}  ${suite}/${item.file}  ${texts.join(', ')}`);
  for (const one of failed) {
    console.log(`    ${one.name}`);
    for (const line of one.output.slice(0, SHOWN)) console.log(`        ${line}`);
    if (one.output.length > SHOWN) console.log(`        ... (${relative(process.cwd(), log)})`);
  }
  if (item.left <= 1) {
    if (lost) cases.set(item.file, { file: item.file, name: '(the rest)', verdict: 'failed', output: [] });
    return undefined;
  }
  if (lost) return { ...item, left: item.left - 1 };
  if (failed.length === 0) return undefined;
  const pattern = exactly(failed.map(({ name }) => name));
  return { file: item.file, pattern, size: failed.length, left: item.left - 1 };
}

/** The list names only cases that there are. */
function checkList(cases, listed) {
  for (const key of listed.keys()) {
    if (cases.has(key)) continue;
    const [file, name] = [
      key.slice(0, key.indexOf(': ')),
      `${key.slice(key.indexOf(': ') + 2)} (listed, but there is no such case)`,
    ];
    cases.set(key, { file, name, verdict: 'failed', output: [] });
  }
}

/** Prints what came of a suite; how many cases failed. */
function summarize(suite, cases) {
  const of = (verdict) => cases.filter((one) => one.verdict === verdict);
  const byReason = groups;
  for (const verdict of ['not applicable', 'skipped']) {
    if (of(verdict).length > 0) console.log(`\n${suite}, ${verdict}:`);
    for (const [reason, list] of byReason(of(verdict))) {
      console.log(`  ${list.length}  ${reason || '(no reason given)'}`);
      if (verdict === 'not applicable')
        for (const one of list) console.log(`       ${one.file}: ${one.name}`);
    }
  }
  const surprising = cases.filter((one) => one.listed);
  if (surprising.length > 0) console.log(`\n${suite}, passed though listed as not applicable:`);
  for (const one of surprising) console.log(`  ${one.file}: ${one.name}`);
  if (of('failed').length > 0) console.log(`\n${suite}, failed:`);
  for (const one of of('failed')) console.log(`  ${one.file}: ${one.name}`);
}

function groups(list) {
  const map = new Map();
  for (const one of list) map.set(one.reason, [...(map.get(one.reason) ?? []), one]);
  return map;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      suite: { type: 'string', multiple: true },
      runtime: { type: 'string', default: join(root, 'dist/tsvmm') },
      jobs: { type: 'string', default: String(availableParallelism()) },
      tries: { type: 'string' },
      'no-setup': { type: 'boolean' },
    },
  });
  const number = (name, text) => {
    if (!/^[1-9]\d*$/.test(text)) throw new SetupError(`--${name} ${text}: not a positive number`);
    return Number(text);
  };
  const names = values.suite ?? Object.keys(SUITES);
  const unknown = names.find((name) => !(name in SUITES));
  if (unknown !== undefined)
    throw new SetupError(`--suite ${unknown}: there are ${Object.keys(SUITES).join(' ')}`);
  const patterns = positionals.map((text) => {
    const [part, ...rest] = text.split(':');
    return { part, pattern: rest.join(':') };
  });
  if (process.getuid() !== 0) throw new SetupError('the suites want root; remedy: sudo, or as root');
  const reason = testbedReason();
  const testbed = reason !== undefined;
  const own = ['tsvmm', 'tsvmm.cjs'].includes(basename(values.runtime));
  if (!values['no-setup']) {
    await setUp(['conformance', ...(own ? ['addon', 'guest'] : []), ...(testbed ? ['testbed'] : [])]);
  }
  const options = {
    folder: await suites(),
    runtime: runtimePath(values.runtime),
    own,
    testbed,
    jobs: number('jobs', values.jobs),
    tries: number('tries', values.tries ?? (testbed ? '2' : '1')),
    caseSeconds: testbed ? TESTBED_CASE_SECONDS : CASE_SECONDS,
    seconds: SESSION_SECONDS,
  };
  const version = spawnSync(options.runtime, ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0];
  console.log(`conformance of ${version}${testbed ? `, in the testbed: ${reason}` : ''}`);
  const results = [];
  for (const suite of names) results.push([suite, await runSuite(suite, options, patterns)]);
  const total = (list, verdict) => list.filter((one) => one.verdict === verdict).length;
  const verdicts = ['passed', 'failed', 'not applicable', 'skipped'];
  const path = join(root, 'out/conformance', basename(options.runtime), 'results.json');
  writeFileSync(path, `${JSON.stringify(Object.fromEntries(results), null, 1)}\n`);
  for (const [suite, list] of results) summarize(suite, list);
  console.log('');
  for (const [suite, list] of results) {
    console.log(`${suite}: ${verdicts.map((verdict) => `${total(list, verdict)} ${verdict}`).join(', ')}`);
  }
  const all = results.flatMap(([, list]) => list);
  console.log(`\n${total(all, 'passed')} passed, ${total(all, 'failed')} failed`);
  return total(all, 'failed') === 0 && total(all, 'passed') > 0 ? 0 : 1;
}

await runMain('conformance', main);
