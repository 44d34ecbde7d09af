import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName, checkQueueSize } from '../options.js';

/** How requests are performed that cannot be at once; `auto`: by io_uring where the kernel has it and allows it, else by threads. */
export type DiskEngine = 'auto' | 'uring' | 'threads';

/** What a disk may do a second; absent: as much as it can. A burst may be done at once after a pause; a second's worth by default. */
export interface DiskLimits {
  readonly bytesPerSecond?: number | undefined;
  readonly bytesBurst?: number | undefined;
  /** Requests of the guest, flushes and discards among them. */
  readonly operationsPerSecond?: number | undefined;
  readonly operationsBurst?: number | undefined;
}

/** A block device (virtio 1.2, 5.2) on a raw disk image or a block device of the host. */
export interface BlkOptions {
  /** For messages and metrics: `blk0`. */
  readonly name: string;
  /**
   * A raw image or a block device. The format is never guessed from the content: the guest could forge it. A writable image must
   * be a whole number of 512-byte sectors; a read-only one may end inside a sector, which is then filled up with zeros.
   */
  readonly path: string;
  /** The guest cannot write, and other machines may read the same disk. False by default. */
  readonly readOnly?: boolean | undefined;
  /** Past the host's page cache (O_DIRECT). Its file system must have that. False by default. */
  readonly direct?: boolean | undefined;
  readonly engine?: DiskEngine | undefined;
  readonly limits?: DiskLimits | undefined;
  /** What the guest reads as the disk's serial number: at most 20 bytes; empty by default. */
  readonly id?: string | undefined;
  /** Number of request queues, 1 to 16; 1 by default. More than one serves guests with several vCPUs. */
  readonly queues?: number | undefined;
  /** Requests in a queue, a power of two from 4 to 1024; 256 by default. */
  readonly queueSize?: number | undefined;
}

/** A machine's disk while the machine lives. */
export interface Disk {
  /** Capacity in sectors of 512 bytes. */
  readonly sectors: number;
  /**
   * Puts another image or block device in the place of this one, as when the medium is changed: what the guest has asked for
   * finishes on the old one, everything later goes to the new one, and the guest hears of a new capacity. Read-only or writable
   * and direct as the old one. Resolves when the old one is closed.
   * @throws Error, naming the path, for a disk that cannot be opened or is in use; the old one stays
   */
  replace(path: string): Promise<void>;
  /** Looks how large the image is now, for one that has grown (or shrunk): the guest hears of it. @throws Error as replace() */
  refresh(): Promise<void>;
}

/** A block device that has its disk open. */
export interface Blk {
  readonly description: VirtioDescription;
  readonly disk: Disk;
  /** False where the disk's file system has no locks: then nothing keeps a second machine from writing to it. */
  readonly locked: boolean;
  /** Closes the disk and gives its lock up. @throws Error while a machine that has not ended uses it */
  close(): void;
}

const DEVICE_ID = 2;
// Virtio 1.2, 5.2.3: feature bits.
const SEG_MAX = 1n << 2n;
const RO = 1n << 5n;
const BLK_SIZE = 1n << 6n;
const FLUSH = 1n << 9n;
const CONFIG_WCE = 1n << 11n;
const MQ = 1n << 12n;
const DISCARD = 1n << 13n;
const WRITE_ZEROES = 1n << 14n;

const ID_BYTES = 20;
const WRITEBACK_OFFSET = 32;
const ENGINES: readonly string[] = ['auto', 'uring', 'threads'];
// 2 GiB and 128 MiB a segment: the second is the most that is written where the file system cannot make zeros by itself.
const MAX_DISCARD_SECTORS = 1 << 22;
const MAX_WRITE_ZEROES_SECTORS = 1 << 18;
const MAX_SEGMENTS = 16;

/**
 * Opens and locks the disk, and describes the device. A writable disk is locked exclusively, a read-only one shared (an advisory
 * open file description lock), so that two machines don't share a writable disk by accident.
 *
 * @throws TypeError or RangeError for a bad option; Error, naming the path, for a disk that cannot be opened or is in use
 */
export function describeBlk(options: BlkOptions): Blk {
  const { name, path, readOnly = false, id = '', queues = 1, queueSize = 256 } = options;
  const { direct = false, engine = 'auto', limits = {} } = options;
  checkName('disk', name);
  if (typeof path !== 'string' || path === '') {
    throw new TypeError(`disk ${name}: path: expected the path of a raw image or a block device`);
  }
  if (path.includes('\0')) throw new TypeError(`disk ${name}: path: contains a NUL character`);
  if (Buffer.byteLength(id) > ID_BYTES || id.includes('\0')) {
    throw new RangeError(
      `disk ${name}: id: expected at most ${ID_BYTES} bytes without NUL, got ${JSON.stringify(id)}`,
    );
  }
  checkInteger(`disk ${name}: queues`, queues, 1, 16);
  checkQueueSize(`disk ${name}: queueSize`, queueSize, 4, 1024);
  if (!ENGINES.includes(engine)) {
    throw new TypeError(
      `disk ${name}: engine: expected auto, uring or threads, got ${JSON.stringify(engine)}`,
    );
  }
  const { bytesPerSecond = 0, bytesBurst = 0, operationsPerSecond = 0, operationsBurst = 0 } = limits;
  checkLimit(name, 'bytes', bytesPerSecond, bytesBurst);
  checkLimit(name, 'operations', operationsPerSecond, operationsBurst);

  const disk = addon().createVirtioBlk({
    path,
    readOnly,
    direct,
    engine,
    id,
    queues,
    ...{ bytesPerSecond, bytesBurst, operationsPerSecond, operationsBurst },
    maxDiscardSectors: MAX_DISCARD_SECTORS,
    maxDiscardSegments: MAX_SEGMENTS,
    maxWriteZeroesSectors: MAX_WRITE_ZEROES_SECTORS,
    maxWriteZeroesSegments: MAX_SEGMENTS,
  });

  let features = SEG_MAX | BLK_SIZE | FLUSH;
  if (readOnly) features |= RO;
  else features |= CONFIG_WCE | DISCARD | WRITE_ZEROES;
  if (queues > 1) features |= MQ;

  return {
    description: {
      name,
      deviceId: DEVICE_ID,
      features,
      queueSizes: new Array<number>(queues).fill(queueSize),
      config: configSpace(disk.sectors, disk.blockSize, queues, queueSize, readOnly),
      ...(readOnly ? {} : { writableConfig: { offset: WRITEBACK_OFFSET, length: 1 } }),
      backend: disk,
    },
    disk: {
      get sectors() {
        return disk.currentSectors();
      },
      replace: (other) => {
        if (typeof other !== 'string' || other === '' || other.includes('\0')) {
          throw new TypeError(`disk ${name}: replace: expected the path of a raw image or a block device`);
        }
        return settle((done) => disk.replace(other, done));
      },
      refresh: () => settle((done) => disk.refresh(done)),
    },
    locked: disk.locked,
    close: () => disk.close(),
  };
}

const settle = (begin: (done: (error?: Error) => void) => void): Promise<void> =>
  new Promise((resolve, reject) => {
    begin((error) => (error === undefined ? resolve() : reject(error)));
  });

function checkLimit(name: string, what: 'bytes' | 'operations', rate: number, burst: number): void {
  checkInteger(`disk ${name}: limits: ${what}PerSecond`, rate, 0, Number.MAX_SAFE_INTEGER);
  checkInteger(`disk ${name}: limits: ${what}Burst`, burst, 0, Number.MAX_SAFE_INTEGER);
  if (burst > 0 && rate === 0) {
    throw new RangeError(`disk ${name}: limits: ${what}Burst without ${what}PerSecond limits nothing`);
  }
}

/** The configuration space (virtio 1.2, 5.2.4); offsets are in bytes. */
function configSpace(
  sectors: number,
  blockSize: number,
  queues: number,
  queueSize: number,
  readOnly: boolean,
): Uint8Array {
  const config = new Uint8Array(60);
  const view = new DataView(config.buffer);
  view.setBigUint64(0, BigInt(sectors), true); // capacity
  view.setUint32(12, queueSize - 2, true); // seg_max: a chain also holds the header and the status
  view.setUint32(20, blockSize, true); // blk_size
  if (!readOnly) view.setUint8(WRITEBACK_OFFSET, 1); // writeback: a FLUSH makes writes durable
  view.setUint16(34, queues, true); // num_queues
  if (!readOnly) {
    const alignment = blockSize / 512;
    view.setUint32(36, MAX_DISCARD_SECTORS, true); // max_discard_sectors
    view.setUint32(40, MAX_SEGMENTS, true); // max_discard_seg
    view.setUint32(44, alignment, true); // discard_sector_alignment
    view.setUint32(48, MAX_WRITE_ZEROES_SECTORS, true); // max_write_zeroes_sectors
    view.setUint32(52, MAX_SEGMENTS, true); // max_write_zeroes_seg
    view.setUint8(56, 1); // write_zeroes_may_unmap
  }
  return config;
}
