// Runs test files, several at a time, each in a process group of its own with a hard time limit, and
// reports what happens as events. As a script it prints the events as lines of JSON, which is how the
// tests inside the testbed come back.
//
//   node scripts/lib/run-files.mjs JOBS SECONDS FILE...
import { spawn } from 'node:child_process';
import { pathToFileURL } from 'node:url';

const GRACE_MS = 5000;

/**
 * Runs each of `files`, `jobs` at a time, for at most `seconds`, `env` added to its environment. `report` gets, for each file,
 * {file, start: true}, {file, out: text}, {file, err: text} in turn, and last
 * {file, end: exit status or signal name, late: whether the time limit ended it, ms}.
 */
export async function runFiles(files, { jobs, seconds, env = {} }, report) {
  const waiting = [...files];
  const running = new Set();
  const killAll = () => {
    for (const kill of running) kill();
  };
  const onSignal = (signal) => {
    killAll();
    process.exit(signal === 'SIGINT' ? 130 : 143);
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal).on('exit', killAll);
  const worker = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      await runFile(file, seconds, env, running, report);
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, files.length) }, worker));
  process.off('SIGINT', onSignal).off('SIGTERM', onSignal).off('exit', killAll);
}

function runFile(file, seconds, env, running, report) {
  return new Promise((resolve) => {
    const start = Date.now();
    report({ file, start: true });
    const child = spawn(process.execPath, ['--enable-source-maps', file], {
      detached: true, // a group of its own
      stdio: ['ignore', 'pipe', 'pipe'],
      // tap's own limit comes first: it names the test that hangs
      env: { ...process.env, ...env, TAP_TIMEOUT: String(Math.ceil(seconds * 0.9)) },
    });
    let late = false;
    let status;
    const killGroup = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {} // nobody left in it
    };
    const kill = () => killGroup('SIGKILL');
    running.add(kill);
    const limit = setTimeout(() => {
      late = true;
      killGroup('SIGTERM');
      setTimeout(kill, GRACE_MS).unref();
    }, seconds * 1000);
    child.stdout.setEncoding('utf8').on('data', (out) => report({ file, out }));
    child.stderr.setEncoding('utf8').on('data', (err) => report({ file, err }));
    const finish = () => {
      clearTimeout(limit);
      running.delete(kill);
      report({ file, end: status, late, ms: Date.now() - start });
      resolve();
    };
    child.on('error', (error) => {
      status = error.message;
      finish();
    });
    child.on('exit', (code, signal) => {
      status = code ?? signal;
      kill(); // what it left behind in its group
      setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, GRACE_MS).unref(); // a process outside its group may hold the pipes open for ever
    });
    child.on('close', finish);
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [jobs, seconds, ...files] = process.argv.slice(2);
  await runFiles(files, { jobs: Number(jobs), seconds: Number(seconds) }, (event) =>
    process.stdout.write(`${JSON.stringify(event)}\n`),
  );
}
