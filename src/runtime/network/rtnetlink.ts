/** Reading and setting of what rtnetlink(7) knows of the calling thread's network namespace. */
import { addon } from '../../addon/index.js';
import { reasonOfErrno, UserError } from '../errors.js';
import { formatAddress } from './address.js';
import { Attributes, MessageReader, MessageWriter, NLM_F, words } from './netlink.js';

const NETLINK_ROUTE = 0;
const RTM = { NEWLINK: 16, GETLINK: 18, GETADDR: 22, GETROUTE: 26, GETNEIGH: 30 } as const;
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  MASTER: 10,
  LINKINFO: 18,
  IFALIAS: 20,
  AF_SPEC: 26,
  EXT_MASK: 29,
} as const;
const IFLA_INFO_KIND = 1;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
/** The dump of links without their statistics, which are most of it. */
const RTEXT_FILTER_SKIP_STATS = 8;
const IFA = { ADDRESS: 1, LOCAL: 2, BROADCAST: 4, FLAGS: 8 } as const;
const IFA_F_DADFAILED = 0x08;
const RTA = {
  DST: 1,
  SRC: 2,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  METRICS: 8,
  MULTIPATH: 9,
  TABLE: 15,
  VIA: 18,
} as const;
const RTAX_MTU = 2;
const RT_TABLE_MAIN = 254;
const RTNH_F_ONLINK = 4;
const RTM_F_CLONED = 0x200;
const NDA = { DST: 1, LLADDR: 2 } as const;
const NUD_PERMANENT = 0x80;
export const AF = { UNSPEC: 0, INET: 2, INET6: 10 } as const;
export const IFF = { UP: 1, LOOPBACK: 8, NOARP: 0x80 } as const;
export const ARPHRD_ETHER = 1;

export interface Link {
  readonly index: number;
  readonly name: string;
  /** ARPHRD_*. */
  readonly type: number;
  /** IFF_*. */
  readonly flags: number;
  readonly mtu: number;
  readonly mac: Uint8Array;
  /** `veth`, `macvlan`, `tun`, ...; empty where the driver has none. */
  readonly kind: string;
  /** Index of the bridge or bond that it is a port of; 0: none. */
  readonly master: number;
  readonly alias: string;
}

export interface Address {
  readonly link: number;
  readonly family: number;
  readonly address: Uint8Array;
  readonly prefix: number;
  readonly scope: number;
  readonly broadcast: Uint8Array | undefined;
  readonly peer: Uint8Array | undefined;
}

/** A route of the main table. */
export interface Route {
  readonly family: number;
  /** `default` or `10.0.0.0/8`. */
  readonly destination: string;
  /** 0 where there is none. */
  readonly link: number;
  readonly gateway: Uint8Array | undefined;
  readonly source: Uint8Array | undefined;
  readonly metric: number;
  readonly scope: number;
  readonly protocol: number;
  /** RTN_*: 1 is unicast. */
  readonly type: number;
  readonly onlink: boolean;
  /** 0 where it sets none. */
  readonly mtu: number;
  /** More next hops than the one that is here. */
  readonly multipath: boolean;
}

export interface Neighbour {
  readonly link: number;
  readonly address: Uint8Array;
  readonly mac: Uint8Array;
}

/** Makes one request. @throws UserError with `what` failed, and why */
export function request(message: MessageWriter, what: string): Uint8Array[] {
  const answer = addon().netlink(NETLINK_ROUTE, message.finish());
  if (typeof answer === 'number') throw new UserError(`${what}: ${reasonOfErrno(answer)}`);
  return answer;
}

/** Makes one request. @returns 0 or -errno */
export function attempt(message: MessageWriter): number {
  const answer = addon().netlink(NETLINK_ROUTE, message.finish());
  return typeof answer === 'number' ? answer : 0;
}

export function readLinks(): Link[] {
  const ask = new MessageWriter(RTM.GETLINK, NLM_F.DUMP, new Uint8Array(16));
  ask.u32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  return request(ask, 'cannot list the network interfaces').map(parseLink);
}

export function parseLink(message: Uint8Array): Link {
  const { fixed, attributes } = new MessageReader(message, 16);
  return {
    index: fixed.getInt32(4, true),
    name: attributes.string(IFLA.IFNAME) ?? '',
    type: fixed.getUint16(2, true),
    flags: fixed.getUint32(8, true),
    mtu: attributes.u32(IFLA.MTU) ?? 0,
    mac: attributes.bytes(IFLA.ADDRESS) ?? new Uint8Array(0),
    kind: attributes.nested(IFLA.LINKINFO)?.string(IFLA_INFO_KIND) ?? '',
    master: attributes.u32(IFLA.MASTER) ?? 0,
    alias: attributes.string(IFLA.IFALIAS) ?? '',
  };
}

/** Those that are in use: an address that another has is none. */
export function readAddresses(): Address[] {
  const ask = new MessageWriter(RTM.GETADDR, NLM_F.DUMP, new Uint8Array(8));
  return request(ask, 'cannot list the network addresses').flatMap((message) => parseAddress(message) ?? []);
}

export function parseAddress(message: Uint8Array): Address | undefined {
  const { fixed, attributes } = new MessageReader(message, 8);
  const flags = attributes.u32(IFA.FLAGS) ?? fixed.getUint8(2);
  const remote = attributes.bytes(IFA.ADDRESS);
  const address = attributes.bytes(IFA.LOCAL) ?? remote;
  if (address === undefined || (flags & IFA_F_DADFAILED) !== 0) return undefined;
  const peer = remote !== undefined && Buffer.compare(remote, address) !== 0 ? remote : undefined;
  return {
    link: fixed.getUint32(4, true),
    family: fixed.getUint8(0),
    address,
    prefix: fixed.getUint8(1),
    scope: fixed.getUint8(3),
    broadcast: attributes.bytes(IFA.BROADCAST),
    peer,
  };
}

export function readRoutes(): Route[] {
  return [AF.INET, AF.INET6].flatMap((family) => {
    const ask = new MessageWriter(RTM.GETROUTE, NLM_F.DUMP, Uint8Array.of(family, ...new Array(11).fill(0)));
    const what = 'cannot list the routes';
    return request(ask, what).flatMap((message) => parseRoute(message) ?? []);
  });
}

export function parseRoute(message: Uint8Array): Route | undefined {
  const { fixed, attributes } = new MessageReader(message, 12);
  const table = attributes.u32(RTA.TABLE) ?? fixed.getUint8(4);
  const flags = fixed.getUint32(8, true);
  if (table !== RT_TABLE_MAIN || (flags & RTM_F_CLONED) !== 0 || attributes.bytes(RTA.SRC)) return undefined;
  const destination = attributes.bytes(RTA.DST);
  const prefix = fixed.getUint8(1);
  const hops = nextHops(attributes);
  const hop = hops[0];
  return {
    family: fixed.getUint8(0),
    destination: destination === undefined ? 'default' : `${formatAddress(destination)}/${prefix}`,
    link: hop?.link ?? attributes.u32(RTA.OIF) ?? 0,
    gateway: hop === undefined ? gatewayOf(attributes) : hop.gateway,
    source: attributes.bytes(RTA.PREFSRC),
    metric: attributes.u32(RTA.PRIORITY) ?? 0,
    scope: fixed.getUint8(6),
    protocol: fixed.getUint8(5),
    type: fixed.getUint8(7),
    onlink: ((hop?.flags ?? flags) & RTNH_F_ONLINK) !== 0,
    mtu: attributes.nested(RTA.METRICS)?.u32(RTAX_MTU) ?? 0,
    multipath: hops.length > 1,
  };
}

/** RTA_VIA is a gateway of another family, behind the number of that. */
function gatewayOf(attributes: Attributes): Uint8Array | undefined {
  return attributes.bytes(RTA.GATEWAY) ?? attributes.bytes(RTA.VIA)?.subarray(2);
}

interface Hop {
  readonly link: number;
  readonly flags: number;
  readonly gateway: Uint8Array | undefined;
}

function nextHops(attributes: Attributes): Hop[] {
  const bytes = attributes.bytes(RTA.MULTIPATH) ?? new Uint8Array(0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const hops: Hop[] = [];
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < 8 || at + length > bytes.length) break;
    const gateway = gatewayOf(new Attributes(bytes.subarray(at + 8, at + length)));
    hops.push({ flags: view.getUint8(at + 2), link: view.getInt32(at + 4, true), gateway });
    at += (length + 3) & ~3;
  }
  return hops;
}

/** The permanent entries. */
export function readNeighbours(): Neighbour[] {
  const ask = new MessageWriter(RTM.GETNEIGH, NLM_F.DUMP, new Uint8Array(12));
  return request(ask, 'cannot list the neighbours').flatMap((message) => parseNeighbour(message) ?? []);
}

export function parseNeighbour(message: Uint8Array): Neighbour | undefined {
  const { fixed, attributes } = new MessageReader(message, 12);
  const address = attributes.bytes(NDA.DST);
  const mac = attributes.bytes(NDA.LLADDR);
  if ((fixed.getUint16(8, true) & NUD_PERMANENT) === 0 || mac?.length !== 6) return undefined;
  if (address?.length !== 4 && address?.length !== 16) return undefined;
  return { link: fixed.getInt32(4, true), address, mac };
}

/** Brings a TAP device up: its MTU and alias are given, and the kernel gives it no address of its own. */
export function bringUpTap(index: number, mtu: number, alias: string, what: string): void {
  const settings = (withIpv6: boolean): MessageWriter => {
    const set = setLink(index, 0);
    set.u32(IFLA.MTU, mtu).string(IFLA.IFALIAS, alias);
    if (!withIpv6) return set;
    return set.nested(IFLA.AF_SPEC, () => {
      set.nested(AF.INET6, () => set.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE));
    });
  };
  // A kernel without IPv6 does not know that part, and has no addresses to give.
  if (attempt(settings(true)) !== 0) request(settings(false), what);
  // An address would be made before the mode is looked at, were it all one request.
  request(setLink(index, IFF.UP), what);
}

/** @param flags IFF_* to set */
function setLink(index: number, flags: number): MessageWriter {
  const fixed = new Uint8Array(16);
  fixed.set(words(index, flags, flags), 4);
  return new MessageWriter(RTM.NEWLINK, 0, fixed);
}
