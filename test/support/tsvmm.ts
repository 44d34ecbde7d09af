import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { packageRoot } from '../../src/addon/index.js';

/** The command as a user has it. */
export const TSVMM = join(packageRoot(), 'dist/tsvmm.cjs');

export interface Outcome {
  /** The exit status; -1 where a signal has ended the command. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function start(args: readonly string[], options: SpawnOptions = {}): ChildProcess {
  return spawn(process.execPath, [TSVMM, ...args], { stdio: 'pipe', ...options });
}

/** Runs the command to its end, `input` on its standard input. */
export async function tsvmm(
  args: readonly string[],
  input: string | Buffer = '',
  options: SpawnOptions = {},
): Promise<Outcome> {
  const child = start(args, options);
  child.stdin?.on('error', () => {}); // the command may end without reading it all
  child.stdin?.end(input);
  return outcome(child);
}

/** Waits for the end of a command. */
export async function outcome(child: ChildProcess): Promise<Outcome> {
  const [stdout, stderr, status] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number>((resolve) => child.on('exit', (code) => resolve(code ?? -1))),
  ]);
  return { status, stdout, stderr };
}

async function text(stream: Readable | null): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream ?? []) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString('latin1');
}

export function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Resolves when the stream has shown `word`; rejects when it ends without. */
export function waitFor(stream: Readable | null, word: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = '';
    stream?.on('data', (chunk: Buffer) => {
      seen += chunk.toString('latin1');
      if (seen.includes(word)) resolve(seen);
    });
    stream?.on('end', () =>
      reject(new Error(`no ${JSON.stringify(word)} in ${JSON.stringify(seen.slice(-2000))}`)),
    );
  });
}
