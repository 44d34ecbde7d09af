// Runs cases of runc's and crun's test suites (test/conformance/) in sessions, and says how each case ended.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { inTestbed, root } from './host.mjs';

/**
 * How a case ended: {file, name, verdict: 'passed' | 'failed' | 'skipped', reason: why it was skipped, output: its lines}.
 *
 * Runs `work`, a list of {file, pattern}, one after the other: `pattern` is a regular expression (of bash and Python) that names cases,
 * empty for all. `report` gets {file, cases, ended, lines} of each file when it ends. A file whose end was not seen (the testbed broke, or the
 * time was over) has `ended` false, and the cases that did end.
 */
export async function runSession({ suite, folder, runtime, testbed, caseSeconds, seconds }, work, report) {
  const command = ['bash', join(root, 'test/conformance/session.sh'), suite, folder, runtime];
  command.push(String(caseSeconds), ...work.flatMap(({ file, pattern }) => [file, pattern]));
  const options = ['-c', '1', '-t', String(seconds)];
  const [program, ...args] = testbed ? inTestbed(command, options) : ['timeout', String(seconds), ...command];
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors = (errors + text).slice(-4000);
  });
  const closed = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? signal));
  });
  let current;
  const finish = (ended) => {
    if (current === undefined) return;
    report({ file: current.file, cases: casesOf(current), ended, lines: current.lines });
    current = undefined;
  };
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('@@ end ')) finish(true);
    else if (line.startsWith('@@ ')) current = { file: line.slice(3), lines: [] };
    else current?.lines.push(line);
  }
  const status = await closed;
  finish(false);
  return { status, errors };
}

/** The cases in what bats or crun-cases.py printed of a file. */
function casesOf({ file, lines }) {
  const cases = [];
  let planned = 0;
  for (const line of lines) {
    const result = /^(not )?ok (\d+) (.*)$/.exec(line);
    const plan = /^1\.\.(\d+)$/.exec(line);
    if (plan !== null) planned = Number(plan[1]);
    if (result === null) {
      cases.at(-1)?.output.push(line);
      continue;
    }
    const skip = / # skip ?(.*)$/.exec(result[3]);
    const late = / # timeout .*$/.exec(result[3]);
    const name = result[3].slice(0, (skip ?? late)?.index);
    const verdict = result[1] !== undefined ? 'failed' : skip !== null ? 'skipped' : 'passed';
    cases.push({ file, name, verdict, reason: skip?.[1] ?? '', output: late === null ? [] : [late[0]] });
  }
  return Object.assign(cases, { planned });
}
