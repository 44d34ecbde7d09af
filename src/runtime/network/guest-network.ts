import { formatAddress, formatMac } from './address.js';
import { type Address, AF, IFF, type Link, type Neighbour, type Route } from './rtnetlink.js';

/** What the guest has to configure: the parameters of the agent's `network.set` (docs/agent-protocol.md). */
export interface NetworkSet {
  readonly interfaces: readonly GuestInterface[];
  readonly routes: readonly GuestRoute[];
  readonly neighbours: readonly GuestNeighbour[];
  /** The content of /etc/resolv.conf. */
  readonly resolvConf?: string;
  /** A name server at port 53 of this address of the guest's loopback, which asks by a vsock port of the host. */
  readonly resolver?: { readonly address: string; readonly port: number };
}

export interface GuestInterface {
  readonly name: string;
  /** Of the card that becomes this interface. */
  readonly mac: string;
  readonly mtu: number;
  /** False for one that neither asks nor answers by ARP or neighbour discovery; true by default. */
  readonly arp?: boolean;
  readonly addresses: readonly GuestAddress[];
}

/** The kernel makes no route of an address's prefix: what there has to be is among the routes. */
export interface GuestAddress {
  readonly address: string;
  readonly prefix: number;
  readonly broadcast?: string;
  /** The other end of a point-to-point link, which the prefix belongs to. */
  readonly peer?: string;
  /** 0 (global) to 255 (nowhere), as rtnetlink(7) has it; 0 by default. */
  readonly scope?: number;
}

/** A route of the main table. */
export interface GuestRoute {
  /** `default` or `10.0.0.0/8`. */
  readonly destination: string;
  /** 4 or 6, needed where the destination is `default`. */
  readonly family: 4 | 6;
  /** Of another family than the route in case (RFC 5549). */
  readonly gateway?: string;
  /** Absent for what goes nowhere (`type`). */
  readonly device?: string;
  readonly source?: string;
  readonly metric?: number;
  readonly scope?: number;
  /** Who made the route: RTPROT_* of linux/rtnetlink.h. */
  readonly protocol?: number;
  /** The gateway is on the link though no route says so. */
  readonly onlink?: boolean;
  /** `unicast` by default. */
  readonly type?: 'unicast' | 'blackhole' | 'unreachable' | 'prohibit';
  readonly mtu?: number;
}

/** A permanent entry of the neighbour table. */
export interface GuestNeighbour {
  readonly address: string;
  readonly mac: string;
  readonly device: string;
}

/** RTN_* of linux/rtnetlink.h that mean something without the host's other tables. */
const ROUTE_TYPES = new Map<number, GuestRoute['type']>([
  [1, 'unicast'],
  [6, 'blackhole'],
  [7, 'unreachable'],
  [8, 'prohibit'],
]);
/** The kernel's own last entry of the IPv6 table. */
const LAST_METRIC = 0xffffffff;

/** What a guest has to configure that takes the place of these interfaces. What it cannot take over is added to the warnings. */
export function guestNetwork(
  links: readonly Link[],
  addresses: readonly Address[],
  routes: readonly Route[],
  neighbours: readonly Neighbour[],
  warnings: string[],
): NetworkSet {
  const names = new Map(links.map(({ index, name }) => [index, name]));
  return {
    interfaces: links.map((link) => guestInterface(link, addresses)),
    routes: routes.flatMap((route) => guestRoute(route, names, warnings) ?? []),
    neighbours: neighbours.flatMap(({ link, address, mac }) => {
      const device = names.get(link);
      return device === undefined ? [] : { address: formatAddress(address), mac: formatMac(mac), device };
    }),
  };
}

function guestInterface(
  { index, name, mac, mtu, flags }: Link,
  addresses: readonly Address[],
): GuestInterface {
  return {
    name,
    mac: formatMac(mac),
    mtu,
    ...((flags & IFF.NOARP) !== 0 ? { arp: false } : {}),
    addresses: addresses
      .filter(({ link }) => link === index)
      .map(({ address, prefix, broadcast, peer, scope }) => ({
        address: formatAddress(address),
        prefix,
        ...(broadcast === undefined ? {} : { broadcast: formatAddress(broadcast) }),
        ...(peer === undefined ? {} : { peer: formatAddress(peer) }),
        ...(scope === 0 ? {} : { scope }),
      })),
  };
}

function guestRoute(
  route: Route,
  names: ReadonlyMap<number, string>,
  warnings: string[],
): GuestRoute | undefined {
  const { destination, gateway, source, metric, scope, protocol, onlink, mtu } = route;
  const type = ROUTE_TYPES.get(route.type);
  if (type === undefined) return undefined;
  const isUnicast = type === 'unicast';
  const device = names.get(route.link);
  if (isUnicast ? device === undefined : metric === LAST_METRIC) return undefined;
  if (route.multipath) {
    warnings.push(`the route to ${destination} has several next hops; the guest gets the first`);
  }
  return {
    destination,
    family: route.family === AF.INET6 ? 6 : 4,
    ...(gateway === undefined ? {} : { gateway: formatAddress(gateway) }),
    ...(isUnicast && device !== undefined ? { device } : { type }),
    ...(source === undefined ? {} : { source: formatAddress(source) }),
    ...(metric === 0 ? {} : { metric }),
    ...(scope === 0 ? {} : { scope }),
    protocol,
    ...(onlink ? { onlink } : {}),
    ...(mtu === 0 ? {} : { mtu }),
  };
}
