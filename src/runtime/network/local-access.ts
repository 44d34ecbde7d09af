/**
 * Programs in a container's network namespace itself reach its addresses by the loopback, where nobody listens: the guest has them. podman's
 * forwarder of published ports, without root, is such a program (rootlessport). So the namespace of such a container gives its
 * address up and has a route to the guest instead, from an address of its own on the machine's TAP device.
 */
import { formatAddress, formatMac } from './address.js';
import type { GuestNeighbour, GuestRoute, NetworkSet } from './guest-network.js';
import { MessageWriter, NLM_F, words } from './netlink.js';
import { type Address, AF, attempt, type Link, request } from './rtnetlink.js';
import { removeFilter, setFilter } from './tc.js';

/** The namespace's own address, which nobody sees but the guest: of the link-local ones that nobody takes by himself (RFC 3927, 2.1). */
const OURS = Uint8Array.of(169, 254, 0, 54);
const RTM = { NEWADDR: 20, NEWROUTE: 24, DELROUTE: 25, NEWNEIGH: 28 } as const;
const IFA = { ADDRESS: 1, LOCAL: 2 } as const;
const RTA = { DST: 1, OIF: 4, PREFSRC: 7 } as const;
const NDA = { DST: 1, LLADDR: 2 } as const;
const NUD_PERMANENT = 0x80;
const TABLE = { MAIN: 254, LOCAL: 255 } as const;
const PROTOCOL = { UNSPEC: 0, KERNEL: 2, STATIC: 4 } as const;
const SCOPE = { LINK: 253, HOST: 254, NOWHERE: 255 } as const;
const TYPE = { UNICAST: 1, LOCAL: 2 } as const;
const HOST_PREFIX = 32;
/** Before all other filters of a TAP device. */
const TO_THE_NAMESPACE = 0x0800;

/** The address that the guest takes over from the interface and that programs of the namespace look for; undefined where none do. */
export function localAddress({ kind, index }: Link, addresses: readonly Address[]): Uint8Array | undefined {
  // What slirp4netns makes; a veth pair's ports are forwarded from its other end.
  if (kind !== 'tun') return undefined;
  return addresses.find(({ link, family, scope }) => link === index && family === AF.INET && scope === 0)
    ?.address;
}

/** Connects the namespace with the guest behind the tap, in the place of another machine's. @throws UserError */
export function openLocalAccess(tap: Link, link: Link, address: Uint8Array, what: string): void {
  setFilter(tap.index, TO_THE_NAMESPACE, tap.mac, 'pass', what);
  const add = NLM_F.CREATE | NLM_F.REPLACE;
  const own = Uint8Array.of(AF.INET, HOST_PREFIX, 0, SCOPE.LINK, ...words(tap.index));
  request(new MessageWriter(RTM.NEWADDR, add, own).bytes(IFA.LOCAL, OURS).bytes(IFA.ADDRESS, OURS), what);
  const neighbour = new Uint8Array(12);
  const fields = new DataView(neighbour.buffer);
  fields.setUint8(0, AF.INET);
  fields.setInt32(4, tap.index, true);
  fields.setUint16(8, NUD_PERMANENT, true);
  const entry = new MessageWriter(RTM.NEWNEIGH, add, neighbour);
  request(entry.bytes(NDA.DST, address).bytes(NDA.LLADDR, link.mac), what);
  const way = routeMessage(
    RTM.NEWROUTE,
    add,
    [TABLE.MAIN, PROTOCOL.STATIC, SCOPE.LINK, TYPE.UNICAST],
    address,
  );
  request(way.u32(RTA.OIF, tap.index).bytes(RTA.PREFSRC, OURS), what);
  // Linux takes frames from an address that an interface here has for forged, unless somebody has made a local route of his own
  // (fib_validate_source): this one, which then goes for good.
  attempt(localRoute(RTM.NEWROUTE, add, PROTOCOL.KERNEL, SCOPE.HOST, address, link.index));
  attempt(localRoute(RTM.DELROUTE, 0, PROTOCOL.UNSPEC, SCOPE.NOWHERE, address, link.index));
}

/** Gives the namespace its address back. What is on the tap goes with that. Never throws. */
export function closeLocalAccess(link: number, address: Uint8Array): void {
  const add = NLM_F.CREATE | NLM_F.EXCL;
  const route = localRoute(RTM.NEWROUTE, add, PROTOCOL.KERNEL, SCOPE.HOST, address, link);
  attempt(route.bytes(RTA.PREFSRC, address));
}

/** Ends the way back from the guest, where the whole could not be made. Never throws. */
export function abandonLocalAccess(tap: Link, link: Link, address: Uint8Array): void {
  removeFilter(tap.index, TO_THE_NAMESPACE, tap.mac);
  closeLocalAccess(link.index, address);
}

/** What the guest has to know of it. */
export function withLocalAccess(guest: NetworkSet, device: string, tap: Link): NetworkSet {
  const address = formatAddress(OURS);
  const route: GuestRoute = {
    destination: `${address}/${HOST_PREFIX}`,
    family: 4,
    device,
    scope: SCOPE.LINK,
  };
  const neighbour: GuestNeighbour = { address, mac: formatMac(tap.mac), device };
  return { ...guest, routes: [...guest.routes, route], neighbours: [...guest.neighbours, neighbour] };
}

function localRoute(
  type: number,
  flags: number,
  protocol: number,
  scope: number,
  address: Uint8Array,
  link: number,
): MessageWriter {
  return routeMessage(type, flags, [TABLE.LOCAL, protocol, scope, TYPE.LOCAL], address).u32(RTA.OIF, link);
}

/** @param rest table, protocol, scope, type of struct rtmsg */
function routeMessage(
  type: number,
  flags: number,
  rest: readonly [number, number, number, number],
  address: Uint8Array,
): MessageWriter {
  const fixed = Uint8Array.of(AF.INET, HOST_PREFIX, 0, 0, ...rest, 0, 0, 0, 0);
  return new MessageWriter(type, flags, fixed).bytes(RTA.DST, address);
}
