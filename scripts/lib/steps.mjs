// The long steps of a set-up: one at a time, each with a log, its time, and a sign of life while it works.
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, createWriteStream, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root, SetupError } from './host.mjs';

const terminal = process.stdout.isTTY === true;
const logs = join(root, 'out/logs');
/** A step that takes less says nothing. */
const QUIET_MS = 1000;
const HEARTBEAT_MS = 20_000;

/** A duration in words. */
export const seconds = (ms) => {
  const s = Math.round(ms / 1000);
  return s < 60 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
};

/** Shows `title`, the time and the last line of output while a step works, and its time when it is done. */
class Progress {
  #start = Date.now();
  #last = '';
  #shown = false;
  #beat = this.#start;
  #timer;

  constructor(title) {
    this.title = title;
    this.#timer = setInterval(() => this.#tick(), terminal ? 200 : QUIET_MS);
  }

  line(text) {
    this.#last = text.trim();
  }

  #tick() {
    const now = Date.now();
    if (now - this.#start < QUIET_MS) return;
    const elapsed = seconds(now - this.#start);
    if (terminal) {
      const text = `  ${this.title}: ${elapsed}  ${this.#last}`;
      process.stdout.write(`\r\x1b[K${text.slice(0, (process.stdout.columns || 80) - 1)}`);
    } else if (!this.#shown) {
      console.log(`  ${this.title} ...`);
    } else if (now - this.#beat >= HEARTBEAT_MS) {
      this.#beat = now;
      console.log(`  ${this.title}: ${elapsed}, at: ${this.#last.slice(0, 100)}`);
    }
    this.#shown = true;
  }

  end(outcome) {
    clearInterval(this.#timer);
    if (terminal && this.#shown) process.stdout.write('\r\x1b[K');
    const elapsed = Date.now() - this.#start;
    if (this.#shown || outcome !== 'done') console.log(`  ${this.title}: ${outcome} in ${seconds(elapsed)}`);
  }
}

/**
 * Runs the commands one after the other under one title. Their output goes to out/logs/NAME.log; a failure
 * throws a SetupError with the log's last lines. `retry` looks at a failed command's output: true runs it again.
 */
export async function step(name, title, commands, { env = {}, retry } = {}) {
  mkdirSync(logs, { recursive: true });
  const path = join(logs, `${name}.log`);
  const log = createWriteStream(path);
  const progress = new Progress(title);
  try {
    for (const command of commands) {
      for (;;) {
        const { status, output } = await runLogged(command, env, log, progress);
        if (status === 0) break;
        if (retry?.(output)) {
          await new Promise((resolve) => setTimeout(resolve, 3000));
          continue;
        }
        await new Promise((resolve) => log.end(resolve));
        progress.end('FAILED');
        throw new SetupError(
          `${title} failed (${command.join(' ')}: ${status})\n${excerpt(path)}\n  The whole log: ${relative(process.cwd(), path)}`,
        );
      }
    }
    progress.end('done');
  } finally {
    log.end();
  }
}

/** The first and the last lines that the last command of a log printed. */
function excerpt(path) {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  const own = lines.slice(lines.findLastIndex((line) => line.startsWith('$ ')) + 1);
  const shown = own.length <= 40 ? own : [...own.slice(0, 10), '...', ...own.slice(-25)];
  return shown.map((line) => `    ${line}`).join('\n');
}

function runLogged([program, ...args], env, log, progress) {
  return new Promise((resolve) => {
    log.write(`$ ${[program, ...args].join(' ')}\n`);
    const child = spawn(program, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    const take = (chunk) => {
      log.write(chunk);
      output = (output + chunk).slice(-65536);
      const lines = output.slice(-4096).split(/[\r\n]/);
      progress.line(lines.findLast((line) => line.trim() !== '') ?? '');
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.on('error', (error) => {
      log.write(`${error.message}\n`);
      resolve({ status: error.message, output });
    });
    child.on('close', (code, signal) => resolve({ status: code ?? signal, output }));
  });
}

/** Runs `work` while this process alone holds the set-up's lock; it is freed even by a kill -9. */
export async function exclusively(work) {
  mkdirSync(join(root, 'out'), { recursive: true });
  const fd = openSync(join(root, 'out/setup.lock'), 'a');
  // flock(1) locks the open file that it shares with us, so the lock is ours when it has gone.
  const flock = (...options) =>
    spawnSync('flock', [...options, '3'], { stdio: ['ignore', 'ignore', 'inherit', fd] });
  try {
    const first = flock('-n');
    if (first.error) throw new SetupError(`cannot run flock (package util-linux): ${first.error.message}`);
    if (first.status !== 0) {
      console.log('  waiting for another set-up of this tree to end ...');
      flock();
    }
    return await work();
  } finally {
    closeSync(fd);
  }
}
