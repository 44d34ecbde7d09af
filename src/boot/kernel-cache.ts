import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { reasonOf } from './error.js';
import type { KernelSegment } from './segments.js';

/** What is kept of an unpacked kernel, beside it and under each file identity that it was reached by. */
export interface KernelRecord {
  /** SHA-256 of the image that it was unpacked from; the name of the unpacked kernel in the cache. */
  readonly sha256: string;
  /** Size of the unpacked kernel, in bytes. */
  readonly size: number;
  readonly segments: readonly KernelSegment[];
  readonly entry: number;
  /** The image's setup header, in hexadecimal digits. */
  readonly setupHeader: string;
  readonly kernelVersion: string;
  readonly initrdAddressMax: number;
  readonly commandLineMax: number;
}

/** Raised when what a record means changes, so that old ones count as absent. */
const FORMAT = 1;
const KERNELS_KEPT = 16;
const IDENTITIES_KEPT = 64;

/**
 * Unpacked kernels by the content of their images: `kernels/SHA256` with its record in `kernels/SHA256.json`, and
 * `kernels/by-stat/KEY`, the same record under the image file's identity, so that a file seen before is not read again.
 * Whatever goes wrong with the cache is a warning, never the end of a boot.
 */
export class KernelCache {
  private readonly kernels: string;
  private readonly identities: string;

  /**
   * @param dir the cache folder of tsvmm; it need not exist.
   * @param warn takes a line for the person.
   */
  constructor(
    dir: string,
    private readonly warn: (message: string) => void,
  ) {
    this.kernels = `${dir}/kernels`;
    this.identities = `${this.kernels}/by-stat`;
  }

  /** Where the unpacked kernel of a record is. */
  pathOf(record: KernelRecord): string {
    return `${this.kernels}/${record.sha256}`;
  }

  /** The record of a file of this identity, if it and the kernel that it speaks of are whole. */
  byIdentity(key: string): KernelRecord | undefined {
    return this.load(`${this.identities}/${key}`);
  }

  /** The record of an image with this content. */
  byContent(sha256: string): KernelRecord | undefined {
    const record = this.load(`${this.kernels}/${sha256}.json`);
    return record?.sha256 === sha256 ? record : undefined;
  }

  /** Remembers that files of this identity have the content of the record. */
  remember(key: string, record: KernelRecord): void {
    try {
      mkdirSync(this.identities, { recursive: true, mode: 0o700 });
      writeAtomically(`${this.identities}/${key}`, encode(record));
    } catch (error) {
      this.warn(`${this.identities}: the kernel cache cannot be written: ${reasonOf(error)}`);
    }
  }

  /** Keeps an unpacked kernel. @returns whether that worked; a warning has been given where not. */
  store(record: KernelRecord, kernel: Uint8Array): boolean {
    try {
      mkdirSync(this.identities, { recursive: true, mode: 0o700 });
      this.tidy();
      writeAtomically(this.pathOf(record), kernel);
      writeAtomically(`${this.pathOf(record)}.json`, encode(record));
      return true;
    } catch (error) {
      const words = `the unpacked kernel cannot be kept (each start unpacks it again): ${reasonOf(error)}`;
      this.warn(`${this.kernels}: ${words}`);
      return false;
    }
  }

  private load(path: string): KernelRecord | undefined {
    try {
      const record = decode(readFileSync(path, 'utf8'));
      return record !== undefined && statSync(this.pathOf(record)).size === record.size ? record : undefined;
    } catch {
      // Absent or unreadable: it is made again.
      return undefined;
    }
  }

  /** Removes what writers that died left behind, and all but the newest entries. */
  private tidy(): void {
    for (const [dir, keep] of [
      [this.kernels, 2 * KERNELS_KEPT],
      [this.identities, IDENTITIES_KEPT],
    ] as const) {
      const files: { path: string; age: number }[] = [];
      for (const entry of readdirSync(dir, { withFileTypes: true })) {
        if (!entry.isFile()) continue;
        const path = `${dir}/${entry.name}`;
        const writer = /\.tmp-(\d+)-/.exec(entry.name)?.[1];
        if (writer === undefined) files.push({ path, age: modified(path) });
        else if (!isAlive(Number(writer))) remove(path);
      }
      files.sort((a, b) => b.age - a.age);
      for (const { path } of files.slice(keep)) remove(path);
    }
  }
}

function encode(record: KernelRecord): Uint8Array {
  return Buffer.from(JSON.stringify({ format: FORMAT, ...record }));
}

/** A record from its text; undefined where it is of another format or damaged. */
function decode(text: string): KernelRecord | undefined {
  const value = JSON.parse(text) as Partial<KernelRecord> & { format?: number };
  const { segments, size, entry, setupHeader, sha256 } = value;
  if (value.format !== FORMAT || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))
    return undefined;
  if (!isCount(size) || !isCount(entry) || !Array.isArray(segments) || segments.length === 0)
    return undefined;
  if (typeof setupHeader !== 'string' || setupHeader.length % 2 !== 0 || !/^[0-9a-f]+$/.test(setupHeader))
    return undefined;
  if (typeof value.kernelVersion !== 'string') return undefined;
  if (!isCount(value.initrdAddressMax) || !isCount(value.commandLineMax)) return undefined;
  const whole = (segments as readonly Partial<KernelSegment>[]).every(
    ({ fileOffset, length, memoryLength, address }) =>
      isCount(fileOffset) &&
      isCount(length) &&
      isCount(memoryLength) &&
      isCount(address) &&
      fileOffset + length <= size &&
      length <= memoryLength,
  );
  return whole ? (value as KernelRecord) : undefined;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Writes a file so that readers see all of it or nothing, whoever else writes it and whenever this process dies. */
function writeAtomically(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.tmp-${process.pid}-${process.hrtime.bigint().toString(36)}`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
  } catch (error) {
    remove(temporary);
    throw error;
  }
}

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Somebody else was quicker.
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH');
  }
}
