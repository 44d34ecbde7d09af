import { type BigIntStats, closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { type BzImage, ENTRY_64, parseBzImage } from './bzimage.js';
import { type ElfImage, isElf, parseElf } from './elf.js';
import { BootError, reasonOf } from './error.js';
import { KernelCache, type KernelRecord } from './kernel-cache.js';
import { bytesReader, fileError, OpenFile } from './reader.js';
import { type KernelSegment, kernelSegments, omitZeros } from './segments.js';

export type { KernelSegment } from './segments.js';

/** How to load and enter a kernel. All addresses are guest physical. */
export interface KernelPlan {
  /** The path that was asked for; messages call the kernel so. */
  readonly name: string;
  /** `elf`: an unpacked kernel, loaded by its segments. `bzimage`: an image that unpacks itself in the guest. */
  readonly kind: 'elf' | 'bzimage';
  /** Where the segments' bytes are: a file, or, where the cache could not be written, memory. */
  readonly source: { readonly path: string } | { readonly bytes: Uint8Array };
  /** In ascending order of address, disjoint. */
  readonly segments: readonly KernelSegment[];
  /** `linux64`: the 64-bit boot protocol with a zero page. `pvh`: 32-bit entry with hvm_start_info. */
  readonly protocol: 'linux64' | 'pvh';
  readonly entry: number;
  /** The image's setup header from 0x1f1 on, for the zero page; null for a plain vmlinux. */
  readonly setupHeader: Uint8Array | null;
  /** The release string of the image, empty where unknown. */
  readonly kernelVersion: string;
  /** The highest address that a byte of the initrd may have. */
  readonly initrdAddressMax: number;
  /** The longest command line in bytes, without its NUL. */
  readonly commandLineMax: number;
  /** The first address behind all memory that the kernel takes before it manages memory itself. */
  readonly memoryEnd: number;
}

export interface OpenKernelOptions {
  /**
   * Who unpacks a bzImage: the host (quick, cached) or the code inside the image. An image whose compression the host
   * does not know falls to the guest, with a warning.
   */
  readonly decompress?: 'host' | 'guest';
  /** Folder of tsvmm's cache; `defaultCacheDir()` unless given, null for none. */
  readonly cacheDir?: string | null;
  /** Takes warnings for the person, a line each; standard error unless given. */
  readonly warn?: (message: string) => void;
}

/** A vmlinux says nothing of its limits; these are Linux's own on x86-64. */
const VMLINUX_INITRD_MAX = 0x7fff_ffff;
const VMLINUX_COMMAND_LINE_MAX = 2047;
const IMAGE_MAX = 512 << 20;
/** A file changed less than this before it was read may change again without a trace in its times. */
const RACY_NANOSECONDS = 100_000_000n;

/** `$XDG_CACHE_HOME/tsvmm`, or `~/.cache/tsvmm`; null where there is no home. */
export function defaultCacheDir(env: NodeJS.ProcessEnv = process.env): string | null {
  if (env.XDG_CACHE_HOME?.startsWith('/')) return `${env.XDG_CACHE_HOME}/tsvmm`;
  return env.HOME?.startsWith('/') ? `${env.HOME}/.cache/tsvmm` : null;
}

/**
 * Finds out how to load and enter a kernel: a bzImage or an x86-64 vmlinux. A bzImage seen before costs two stats and
 * one small read; one that is new is read, unpacked and cached.
 * @throws BootError that names the file and what is wrong with it.
 */
export async function openKernel(path: string, options: OpenKernelOptions = {}): Promise<KernelPlan> {
  const warn = options.warn ?? ((message: string) => process.stderr.write(`tsvmm: warning: ${message}\n`));
  const cacheDir = options.cacheDir === undefined ? defaultCacheDir() : options.cacheDir;
  const cache = cacheDir === null ? undefined : new KernelCache(cacheDir, warn);
  if (options.decompress !== 'guest') {
    const record = cache?.byIdentity(identityOf(statKernel(path)));
    if (cache !== undefined && record !== undefined)
      return fromRecord(path, record, { path: cache.pathOf(record) });
  }
  const file = new OpenFile(path);
  let image: BzImage;
  try {
    if (isElf(file.read(0, 4))) return fromElf(path, parseElf(file, path));
    image = parseBzImage(file, path);
  } finally {
    file.close();
  }
  if (options.decompress === 'guest') return fromBzImage(path, image);
  try {
    return await unpackImage(path, cache);
  } catch (error) {
    if (!(error instanceof BootError) || error.code !== 'unsupported') throw error;
    warn(`${reasonOf(error)}; it unpacks itself in the guest, which takes longer`);
    return fromBzImage(path, image);
  }
}

/** Reads and unpacks a bzImage, unless its content is in the cache, and caches it. */
async function unpackImage(path: string, cache: KernelCache | undefined): Promise<KernelPlan> {
  const { createHash } = await import('node:crypto');
  const { bytes, key } = readImage(path);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const known = cache?.byContent(sha256);
  if (cache !== undefined && known !== undefined) {
    if (key !== undefined) cache.remember(key, known);
    return fromRecord(path, known, { path: cache.pathOf(known) });
  }
  const { unpackPayload } = await import('./decompress.js');
  const image = parseBzImage(bytesReader(bytes), path);
  const payload = bytes.subarray(image.payloadOffset, image.payloadOffset + image.payloadLength);
  const kernel = await unpackPayload(payload, path);
  const elf = parseElf(bytesReader(kernel), `${path}: its unpacked payload`);
  const record: KernelRecord = {
    sha256,
    size: kernel.length,
    segments: omitZeros(kernelSegments(elf.segments), kernel),
    entry: elf.entry,
    setupHeader: Buffer.from(image.setupHeader).toString('hex'),
    kernelVersion: image.kernelVersion,
    initrdAddressMax: image.initrdAddressMax,
    commandLineMax: image.commandLineMax,
  };
  if (cache === undefined || !cache.store(record, kernel)) return fromRecord(path, record, { bytes: kernel });
  if (key !== undefined) cache.remember(key, record);
  return fromRecord(path, record, { path: cache.pathOf(record) });
}

/** A whole image, with the identity under which its content may be remembered, if any. */
function readImage(path: string): { bytes: Uint8Array; key?: string } {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw fileError(path, error);
  }
  try {
    const before = fstatSync(fd, { bigint: true });
    if (before.size > BigInt(IMAGE_MAX))
      throw new BootError('not-a-kernel', `${path}: too large for a kernel`);
    const bytes = readFileSync(fd);
    const after = fstatSync(fd, { bigint: true });
    const settled = BigInt(Date.now()) * 1_000_000n - after.ctimeNs > RACY_NANOSECONDS;
    return identityOf(before) === identityOf(after) && settled
      ? { bytes, key: identityOf(after) }
      : { bytes };
  } finally {
    closeSync(fd);
  }
}

function statKernel(path: string): BigIntStats {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    throw fileError(path, error);
  }
}

/** What changes whenever a file's content does: each write sets ctime. */
function identityOf(stat: BigIntStats): string {
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs]
    .map((part) => part.toString(36))
    .join('-');
}

function memoryEnd(segments: readonly KernelSegment[]): number {
  const last = segments.at(-1);
  return last === undefined ? 0 : last.address + last.memoryLength;
}

/** An unpacked Linux is entered where its ELF header says, at the addresses that it was linked for. */
function fromRecord(name: string, record: KernelRecord, source: KernelPlan['source']): KernelPlan {
  return {
    name,
    kind: 'elf',
    source,
    segments: record.segments,
    protocol: 'linux64',
    entry: record.entry,
    setupHeader: Buffer.from(record.setupHeader, 'hex'),
    kernelVersion: record.kernelVersion,
    initrdAddressMax: record.initrdAddressMax,
    commandLineMax: record.commandLineMax,
    memoryEnd: memoryEnd(record.segments),
  };
}

/** A plain vmlinux: Linux by its 64-bit entry; another system by its PVH entry, where it has one. */
function fromElf(name: string, elf: ElfImage): KernelPlan {
  const pvh = elf.pvhEntry !== undefined && elf.guestOs !== 'linux';
  const segments = kernelSegments(elf.segments);
  return {
    name,
    kind: 'elf',
    source: { path: name },
    segments,
    protocol: pvh ? 'pvh' : 'linux64',
    entry: pvh ? elf.pvhEntry : elf.entry,
    setupHeader: null,
    kernelVersion: '',
    initrdAddressMax: VMLINUX_INITRD_MAX,
    commandLineMax: VMLINUX_COMMAND_LINE_MAX,
    memoryEnd: memoryEnd(segments),
  };
}

/** A bzImage that unpacks itself: its protected-mode code at the address that it prefers. */
function fromBzImage(name: string, image: BzImage): KernelPlan {
  const address = image.preferredAddress;
  return {
    name,
    kind: 'bzimage',
    source: { path: name },
    segments: [
      { fileOffset: image.codeOffset, length: image.codeSize, memoryLength: image.codeSize, address },
    ],
    protocol: 'linux64',
    entry: address + ENTRY_64,
    setupHeader: image.setupHeader,
    kernelVersion: image.kernelVersion,
    initrdAddressMax: image.initrdAddressMax,
    commandLineMax: image.commandLineMax,
    memoryEnd: address + Math.max(image.initSize, image.codeSize),
  };
}
