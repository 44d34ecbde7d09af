import { hostname } from 'node:os';
import { addon, type NativeNet } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName, checkQueueSize } from '../options.js';
import { macFrom, parseMac } from './mac.js';
import { type PasstOptions, startPasst } from './passt.js';

export type { PasstOptions } from './passt.js';

/** What the guest's network card is connected to on the host; one of these. */
export type NetBackend =
  /**
   * A TAP device, by name. One that does not exist is made (which takes CAP_NET_ADMIN), brought up, and vanishes with the
   * machine; one that exists is left as it is, unless `up` asks to bring it up as well.
   */
  | { readonly tap: string; readonly up?: boolean | undefined }
  /** Open descriptors of a TAP device, one a queue, opened with IFF_VNET_HDR and IFF_NO_PI. They are duplicated. */
  | { readonly tapFd: number | readonly number[] }
  /** A passt of its own. */
  | { readonly passt: PasstOptions }
  /** A connected stream socket of something that speaks as passt does: each frame behind its length (32 bits, big-endian). */
  | { readonly streamFd: number };

/** What may pass a second in one direction; what is not given is not limited. A burst is a second's worth by default. */
export interface NetLimits {
  readonly bytesPerSecond?: number | undefined;
  readonly bytesBurst?: number | undefined;
  readonly packetsPerSecond?: number | undefined;
  readonly packetsBurst?: number | undefined;
}

export interface NetSettings {
  /** The guest's address: `52:54:00:12:34:56`. By default one that follows from the names of the host and of the TAP device. */
  readonly mac?: string | undefined;
  /** The largest packet, 68 to 65535 bytes, which the guest is told. By default the TAP device's; 65520 for passt, 1500 else. */
  readonly mtu?: number | undefined;
  /** Pairs of queues, 1 to 8, for guests with several vCPUs; 1 by default. More than one only with a TAP device. */
  readonly queues?: number | undefined;
  /** Buffers in a queue, a power of two from 64 to 1024; 256 by default. */
  readonly queueSize?: number | undefined;
  /** Whether the cable is plugged at first; true by default. */
  readonly link?: boolean | undefined;
  readonly toGuest?: NetLimits | undefined;
  readonly fromGuest?: NetLimits | undefined;
}

/** A network device (virtio 1.2, 5.1). */
export type NetOptions = NetBackend &
  NetSettings & {
    /** For messages and metrics: `net0`. */
    readonly name: string;
    /** Hears that passt has ended by itself, and why. */
    readonly onEnd?: ((why: string) => void) | undefined;
  };

/** A network card while its machine lives. */
export interface Nic {
  readonly description: VirtioDescription;
  readonly mac: string;
  readonly mtu: number;
  /** Name of the TAP device, where there is one. */
  readonly tap: string | undefined;
  /** Plugs and unplugs the guest's cable. What is sent meanwhile, either way, is lost. */
  setLink(up: boolean): void;
  /** Ends passt and lets the TAP device go. @throws Error while a machine that has not ended uses it */
  close(): void;
}

const DEVICE_ID = 1;
// Virtio 1.2, 5.1.3: feature bits.
const MTU = 1n << 3n;
const MAC = 1n << 5n;
const MRG_RXBUF = 1n << 15n;
const STATUS = 1n << 16n;
const CTRL_VQ = 1n << 17n;
const CTRL_RX = 1n << 18n;
const CTRL_VLAN = 1n << 19n;
const CTRL_RX_EXTRA = 1n << 20n;
const MQ = 1n << 22n;
const CTRL_MAC_ADDR = 1n << 23n;
const ALWAYS = MTU | MAC | MRG_RXBUF | STATUS | CTRL_VQ | CTRL_RX | CTRL_VLAN | CTRL_RX_EXTRA | CTRL_MAC_ADDR;
/** CSUM, GUEST_CSUM, CTRL_GUEST_OFFLOADS; TSO4, TSO6, ECN and UFO in both directions: what the kernel does behind a TAP device. */
const OFFLOADS = (0b111n << 0n) | (0b1111n << 7n) | (0b1111n << 11n);

const CONTROL_QUEUE_SIZE = 64;
const LINK_UP = 1;
const PASST_MTU = 65_520;
const ETHERNET_MTU = 1500;

/**
 * Opens the backend and describes the device.
 * @throws TypeError or RangeError for a bad option; Error, with the remedy, for a TAP device or a passt that cannot be had
 */
export async function describeNet(options: NetOptions): Promise<Nic> {
  const { name, queues = descriptors(options).length || 1, queueSize = 256, link = true } = options;
  checkName('network', name);
  const where = `network ${name}`;
  checkInteger(`${where}: queues`, queues, 1, 8);
  checkQueueSize(`${where}: queueSize`, queueSize, 64, 1024);
  if (options.mtu !== undefined) checkInteger(`${where}: mtu`, options.mtu, 68, 65_535);
  checkBackend(where, options, queues);
  const seed = 'tap' in options ? options.tap : name;
  const mac = options.mac ?? macFrom(`${hostname()}/${seed}`);
  const address = parseMac(`${where}: mac`, mac);

  const isTap = 'tap' in options || 'tapFd' in options;
  const mtu = options.mtu ?? (isTap ? 0 : 'passt' in options ? PASST_MTU : ETHERNET_MTU);
  const settings = {
    mac: address,
    mtu,
    link,
    toGuest: limits(`${where}: toGuest`, options.toGuest),
    fromGuest: limits(`${where}: fromGuest`, options.fromGuest),
  };
  const native = addon().createVirtioNet({ ...nativeBackend(options, queues), ...settings });
  const stop = 'passt' in options ? await connectPasst(native, options.passt, options.onEnd) : undefined;

  return {
    description: {
      name,
      deviceId: DEVICE_ID,
      features: ALWAYS | (isTap ? OFFLOADS : 0n) | (queues > 1 ? MQ : 0n),
      queueSizes: [...new Array<number>(2 * queues).fill(queueSize), CONTROL_QUEUE_SIZE],
      config: configSpace(address, link, queues, native.mtu || ETHERNET_MTU),
      backend: native,
    },
    mac,
    mtu: native.mtu || ETHERNET_MTU,
    tap: native.tap,
    setLink: (up) => native.setLink(up),
    close() {
      native.close();
      stop?.();
    },
  };
}

async function connectPasst(
  native: NativeNet,
  options: PasstOptions,
  onEnd: ((why: string) => void) | undefined,
): Promise<() => void> {
  try {
    return await startPasst(options, native.peer, onEnd ?? ((): void => {}));
  } catch (error) {
    native.close();
    throw error;
  } finally {
    addon().close(native.peer);
  }
}

function descriptors(options: NetBackend): readonly number[] {
  if (!('tapFd' in options)) return [];
  return typeof options.tapFd === 'number' ? [options.tapFd] : options.tapFd;
}

function checkBackend(where: string, options: NetBackend, queues: number): void {
  const kinds = ['tap', 'tapFd', 'passt', 'streamFd'].filter((kind) => Object.hasOwn(options, kind));
  if (kinds.length !== 1) {
    throw new TypeError(
      `${where}: expected one of tap, tapFd, passt and streamFd, got ${kinds.join(' and ') || 'none'}`,
    );
  }
  if ('tap' in options) {
    const { tap } = options;
    // What the kernel takes for an interface's name; a % would make it choose one.
    if (typeof tap !== 'string' || !/^[^\s/:%\0]{1,15}$/.test(tap) || tap === '.' || tap === '..') {
      throw new TypeError(
        `${where}: tap: expected an interface's name of 1 to 15 characters, got ${JSON.stringify(tap)}`,
      );
    }
    return;
  }
  for (const fd of descriptors(options)) checkInteger(`${where}: tapFd`, fd, 0, 0x7fffffff);
  if ('streamFd' in options) checkInteger(`${where}: streamFd`, options.streamFd, 0, 0x7fffffff);
  if ('tapFd' in options && descriptors(options).length !== queues) {
    throw new RangeError(`${where}: queues: ${queues}, but tapFd has ${descriptors(options).length}`);
  }
  if (!('tapFd' in options) && queues > 1) {
    throw new RangeError(`${where}: queues: several are only possible with a TAP device, got ${queues}`);
  }
}

function nativeBackend(options: NetBackend, pairs: number) {
  if ('tap' in options) return { tap: options.tap, up: options.up === true, pairs };
  if ('tapFd' in options) return { tapFds: descriptors(options) };
  if ('streamFd' in options) return { streamFd: options.streamFd };
  return {};
}

function limits(where: string, given: NetLimits = {}) {
  const { bytesPerSecond = 0, bytesBurst = 0, packetsPerSecond = 0, packetsBurst = 0 } = given;
  const all = { bytesPerSecond, bytesBurst, packetsPerSecond, packetsBurst };
  for (const [key, value] of Object.entries(all)) {
    checkInteger(`${where}: ${key}`, value, 0, Number.MAX_SAFE_INTEGER);
  }
  return all;
}

/** The configuration space (virtio 1.2, 5.1.4); offsets are in bytes. */
function configSpace(mac: Uint8Array, link: boolean, queues: number, mtu: number): Uint8Array {
  const config = new Uint8Array(12);
  config.set(mac); // mac
  const view = new DataView(config.buffer);
  view.setUint16(6, link ? LINK_UP : 0, true); // status
  view.setUint16(8, queues, true); // max_virtqueue_pairs
  view.setUint16(10, mtu, true); // mtu
  return config;
}
