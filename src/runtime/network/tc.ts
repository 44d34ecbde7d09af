/** Traffic control (tc(8)) of frames that come in at an interface of the calling thread's network namespace. */
import { reasonOfErrno, UserError } from '../errors.js';
import { MessageReader, MessageWriter, NLM_F, words } from './netlink.js';
import { attempt, request } from './rtnetlink.js';

const RTM = { NEWQDISC: 36, DELQDISC: 37, NEWTFILTER: 44, DELTFILTER: 45, GETTFILTER: 46 } as const;
const TCA = { KIND: 1, OPTIONS: 2 } as const;
const INGRESS_HANDLE = 0xffff0000;
const INGRESS_PARENT = 0xfffffff1;
/** What comes in, at a qdisc of the kind ingress as at one of the kind clsact. */
const INGRESS_FILTERS = 0xfffffff2;
const TCA_MATCHALL_ACT = 2;
const TCA_ACT = { KIND: 1, OPTIONS: 2 } as const;
const TCA_MIRRED_PARMS = 2;
const TCA_GACT_PARMS = 2;
const TCA_EGRESS_REDIR = 1;
const TCA_EGRESS_MIRROR = 2;
/** What becomes of the frame after an action. */
const TC_ACT = { CONTINUE: -1, OK: 0, SHOT: 2, STOLEN: 4 } as const;
const TCA_FLOWER = {
  ACT: 3,
  ETH_DST: 4,
  ETH_DST_MASK: 5,
  ETH_TYPE: 8,
  IP_PROTO: 9,
  ICMPV4_TYPE: 51,
  ICMPV4_TYPE_MASK: 52,
  ICMPV6_TYPE: 55,
  ICMPV6_TYPE_MASK: 56,
  TCP_FLAGS: 71,
  TCP_FLAGS_MASK: 72,
} as const;
const ETH_P = { ALL: 0x0003, IP: 0x0800, IPV6: 0x86dd } as const;
const IPPROTO = { ICMP: 1, TCP: 6, ICMPV6: 58 } as const;
const TCP_RST = 4;
/** EtherType, IP protocol, type of ICMP. */
const PACKETS = {
  'tcp-reset-4': [ETH_P.IP, IPPROTO.TCP, 0],
  'tcp-reset-6': [ETH_P.IPV6, IPPROTO.TCP, 0],
  'unreachable-4': [ETH_P.IP, IPPROTO.ICMP, 3],
  'unreachable-6': [ETH_P.IPV6, IPPROTO.ICMPV6, 1],
  'echo-reply-4': [ETH_P.IP, IPPROTO.ICMP, 0],
  'echo-reply-6': [ETH_P.IPV6, IPPROTO.ICMPV6, 129],
} as const;

/** The mask of an address of which every bit counts. */
const EXACTLY = new Uint8Array(6).fill(0xff);

const ENOENT = -2;
const EEXIST = -17;
const EINVAL = -22;

/** Filters are asked in the order of their preference, the lowest first; each has one of its own. */
export type Preference = number;

/** What a filter does with the frames that it matches. */
export type Action =
  /** A copy goes out at the interface with that index, where it is still there; the next filter is asked as well. */
  | { readonly mirror: number }
  /** It goes out there, and nobody else sees it. */
  | { readonly redirect: number }
  | 'drop'
  /** It goes on to the network stack. */
  | 'pass';

/** Frames that a filter of its own picks out; an address: those that go to it. */
export type Match = 'all' | PacketMatch | Uint8Array;
export type PacketMatch = keyof typeof PACKETS;

/** Makes it possible to filter what comes in at an interface; nothing happens where it is so already. @throws UserError */
export function addIngress(link: number, what: string): void {
  const fixed = tcHeader(link, INGRESS_HANDLE, INGRESS_PARENT, 0);
  const message = new MessageWriter(RTM.NEWQDISC, NLM_F.CREATE | NLM_F.EXCL, fixed);
  const status = attempt(message.string(TCA.KIND, 'ingress').bytes(TCA.OPTIONS, new Uint8Array(0)));
  if (status !== 0 && status !== EEXIST) fail(what, 'sch_ingress', status);
}

/** Removes that, where it is there and has no filters of others. Never throws. */
export function removeIngress(link: number): void {
  const message = new MessageWriter(RTM.DELQDISC, 0, tcHeader(link, INGRESS_HANDLE, INGRESS_PARENT, 0));
  attempt(message.string(TCA.KIND, 'ingress'));
}

/** Adds a filter, in the place of the one with that preference. @throws UserError */
export function setFilter(link: number, at: Preference, match: Match, action: Action, what: string): void {
  const fixed = tcHeader(link, 0, INGRESS_FILTERS, filterInfo(at, match));
  const message = new MessageWriter(RTM.NEWTFILTER, NLM_F.CREATE | NLM_F.EXCL, fixed);
  message.string(TCA.KIND, match === 'all' ? 'matchall' : 'flower');
  message.nested(TCA.OPTIONS, () => {
    if (match instanceof Uint8Array) {
      message.bytes(TCA_FLOWER.ETH_DST, match).bytes(TCA_FLOWER.ETH_DST_MASK, EXACTLY);
    } else if (match !== 'all') {
      writePacketMatch(message, match);
    }
    message.nested(match === 'all' ? TCA_MATCHALL_ACT : TCA_FLOWER.ACT, () =>
      message.nested(1, () => writeAction(message, action)),
    );
  });
  let status = attempt(message);
  if (status === EEXIST) {
    removeFilter(link, at, match);
    status = attempt(message);
  }
  if (status !== 0) {
    const modules = match === 'all' ? 'cls_matchall, act_mirred or act_gact' : 'cls_flower or act_gact';
    fail(what, modules, status);
  }
}

/** Removes a filter, where it is there. Never throws. */
export function removeFilter(link: number, at: Preference, match: Match): void {
  attempt(new MessageWriter(RTM.DELTFILTER, 0, tcHeader(link, 0, INGRESS_FILTERS, filterInfo(at, match))));
}

/** The preferences of the filters of what comes in; none where the interface has gone. */
export function listFilters(link: number): Preference[] {
  const message = new MessageWriter(RTM.GETTFILTER, NLM_F.DUMP, tcHeader(link, 0, INGRESS_FILTERS, 0));
  try {
    const found = request(message, 'cannot list the filters').map(
      (answer) => new MessageReader(answer, 20).fixed.getUint32(16, true) >>> 16,
    );
    return [...new Set(found)];
  } catch {
    return [];
  }
}

function tcHeader(link: number, handle: number, parent: number, info: number): Uint8Array {
  return words(0, link, handle, parent, info);
}

/** The preference above the EtherType, which is in network byte order. */
function filterInfo(at: Preference, match: Match): number {
  const type = match === 'all' || match instanceof Uint8Array ? ETH_P.ALL : PACKETS[match][0];
  return ((at << 16) | ((type & 0xff) << 8) | (type >> 8)) >>> 0;
}

function writePacketMatch(message: MessageWriter, match: PacketMatch): void {
  const [etherType, protocol, icmpType] = PACKETS[match];
  message.be16(TCA_FLOWER.ETH_TYPE, etherType).u8(TCA_FLOWER.IP_PROTO, protocol);
  if (protocol === IPPROTO.TCP) {
    message.be16(TCA_FLOWER.TCP_FLAGS, TCP_RST).be16(TCA_FLOWER.TCP_FLAGS_MASK, TCP_RST);
  } else if (protocol === IPPROTO.ICMP) {
    message.u8(TCA_FLOWER.ICMPV4_TYPE, icmpType).u8(TCA_FLOWER.ICMPV4_TYPE_MASK, 0xff);
  } else {
    message.u8(TCA_FLOWER.ICMPV6_TYPE, icmpType).u8(TCA_FLOWER.ICMPV6_TYPE_MASK, 0xff);
  }
}

function writeAction(message: MessageWriter, action: Action): void {
  if (action === 'drop' || action === 'pass') {
    const verdict = action === 'drop' ? TC_ACT.SHOT : TC_ACT.OK;
    message.string(TCA_ACT.KIND, 'gact');
    message.nested(TCA_ACT.OPTIONS, () => {
      message.bytes(TCA_GACT_PARMS, words(0, 0, verdict, 0, 0));
    });
    return;
  }
  const [to, how, then] =
    'mirror' in action
      ? [action.mirror, TCA_EGRESS_MIRROR, TC_ACT.CONTINUE]
      : [action.redirect, TCA_EGRESS_REDIR, TC_ACT.STOLEN];
  message.string(TCA_ACT.KIND, 'mirred');
  message.nested(TCA_ACT.OPTIONS, () => {
    message.bytes(TCA_MIRRED_PARMS, words(0, 0, then, 0, 0, how, to));
  });
}

function fail(what: string, modules: string, status: number): never {
  const missing = status === ENOENT || status === EINVAL;
  const remedy = missing ? `; the host's kernel may lack ${modules}: modprobe` : '';
  throw new UserError(`${what}: ${reasonOfErrno(status)}${remedy}`);
}
