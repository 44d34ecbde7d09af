import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type Beyond, beyondGuest } from './footprint.js';

/** How long a command may take, in milliseconds; the testbed is slow. */
const LIMIT_MS = 180_000;

export interface Timing {
  /** CLOCK_MONOTONIC just before the command's start, in nanoseconds. */
  readonly start: number;
  /** Nanoseconds from then on until its output had the mark. */
  readonly firstLine: number;
  /** And until it had ended. */
  readonly end: number;
}

/** Runs a command to its end. @throws Error where it fails, or never shows the mark. */
export function timeCommand(command: readonly string[], mark = ''): Promise<Timing> {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint();
    const since = (): number => Number(process.hrtime.bigint() - start);
    const child = startCommand(command);
    let firstLine = mark === '' ? 0 : undefined;
    const output = watch(child, mark, () => {
      firstLine ??= since();
    });
    let end = 0;
    child.on('exit', () => {
      end = since();
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code !== 0 || firstLine === undefined) {
        reject(
          failure(command, code === 0 ? `without "${mark}"` : `with ${signal ?? `status ${code}`}`, output()),
        );
      } else {
        resolve({ start: Number(start), firstLine, end });
      }
    });
  });
}

/** Runs a command to its end; its standard output. @throws Error where it fails */
export function outputOf(command: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = startCommand(command);
    let output = '';
    child.stdout?.setEncoding('latin1').on('data', (text: string) => {
      output += text;
    });
    const said = watch(child, '', () => {});
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
      else reject(failure(command, `with ${signal ?? `status ${code}`}`, said()));
    });
  });
}

/** Runs a command until its output has the mark; its memory then, beyond that of its guest. Ends it. */
export async function footprintOf(
  command: readonly string[],
  mark: string,
  guestBytes: number,
): Promise<Beyond> {
  const child = startCommand(command);
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  try {
    await new Promise<void>((resolve, reject) => {
      const output = watch(child, mark, resolve);
      child.on('error', reject);
      child.on('close', () => reject(failure(command, `without "${mark}"`, output())));
    });
    return beyondGuest(readFileSync(`/proc/${child.pid}/smaps`, 'utf8'), guestBytes);
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

function startCommand([program = '', ...args]: readonly string[]): ChildProcess {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
  child.on('exit', () => clearTimeout(limit));
  return child;
}

/** Calls `seen` when standard output has the mark; the result is what the command has said so far. */
function watch(child: ChildProcess, mark: string, seen: () => void): () => string {
  let output = '';
  let errors = '';
  child.stdout?.setEncoding('latin1').on('data', (text: string) => {
    output += text;
    if (mark !== '' && output.includes(mark)) seen();
  });
  child.stderr?.setEncoding('latin1').on('data', (text: string) => {
    errors += text;
  });
  return () => `${output}${errors}`;
}

function failure(command: readonly string[], how: string, output: string): Error {
  return new Error(`${command.join(' ')}\nended ${how} after:\n${output.slice(-2000)}`);
}
