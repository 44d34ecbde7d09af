/** Assembles the guests of tests from readable source with GNU as and ld, which come with g++. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../src/addon/index.js';

export interface Assembled {
  /** What to put at the origin. */
  readonly bytes: Uint8Array;
  /** Addresses of the labels. */
  readonly labels: Readonly<Record<string, number>>;
}

/**
 * Assembles `source` (AT&T syntax, `#` comments, labels of one's own) for 16, 32 or 64 bits to run at `origin`. The
 * result is kept under out/micro-guests by the source's hash. Throws an Error with the assembler's words.
 */
export function assemble(source: string, bits: 16 | 32 | 64, origin: number): Assembled {
  const hash = createHash('sha256').update(`${bits} ${origin} ${source}`).digest('hex').slice(0, 32);
  const folder = join(packageRoot(), 'out/micro-guests');
  const cached = join(folder, `${hash}.json`);
  try {
    return decode(readFileSync(cached, 'utf8'));
  } catch {
    // Not there yet.
  }
  const scratch = mkdtempSync(join(tmpdir(), 'micro-guest-'));
  try {
    const file = (name: string): string => join(scratch, name);
    const wide = bits === 64;
    writeFileSync(file('guest.s'), `.code${bits}\n.text\n.globl _start\n_start:\n${source}\n`);
    tool('as', [wide ? '--64' : '--32', '-o', file('guest.o'), file('guest.s')]);
    const at = `0x${origin.toString(16)}`;
    const emulation = wide ? 'elf_x86_64' : 'elf_i386';
    tool('ld', [
      '-m',
      emulation,
      '-N',
      '--build-id=none',
      `-Ttext=${at}`,
      '-o',
      file('elf'),
      file('guest.o'),
    ]);
    tool('objcopy', ['-O', 'binary', file('elf'), file('bin')]);
    const labels: Record<string, number> = {};
    for (const line of tool('nm', [file('elf')]).split('\n')) {
      const [address, , name] = line.split(' ');
      if (address !== undefined && name !== undefined) {
        labels[name] = Number.parseInt(address, 16);
      }
    }
    const text = JSON.stringify({ bytes: readFileSync(file('bin'), 'base64'), labels });
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${cached}.${process.pid}`, text);
    renameSync(`${cached}.${process.pid}`, cached);
    return decode(text);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function decode(text: string): Assembled {
  const { bytes, labels } = JSON.parse(text) as { bytes: string; labels: Record<string, number> };
  return { bytes: Buffer.from(bytes, 'base64'), labels };
}

function tool(name: string, args: string[]): string {
  return execFileSync(name, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
