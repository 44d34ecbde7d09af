/**
 * Networks of containers: the interfaces of a network namespace carried into a machine. Every frame that comes in at an interface is
 * mirrored to a TAP device beside it, which is the guest's card, and nothing of it reaches the namespace itself; what
 * the guest sends is redirected to the interface. The guest gets the interface's name, addresses, routes and permanent neighbours.
 */
import { closeSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import type { NetworkConfig } from '../../machine/config.js';
import { messageOf, reasonOfErrno, UserError } from '../errors.js';
import { formatMac } from './address.js';
import { guestNetwork, type NetworkSet } from './guest-network.js';
import {
  abandonLocalAccess,
  closeLocalAccess,
  localAddress,
  openLocalAccess,
  withLocalAccess,
} from './local-access.js';
import { NetworkNamespace } from './namespace.js';
import { attachPasst } from './passt.js';
import type { NetworkPlan } from './plan.js';
import {
  type Address,
  ARPHRD_ETHER,
  bringUpTap,
  IFF,
  type Link,
  readAddresses,
  readLinks,
  readNeighbours,
  readRoutes,
} from './rtnetlink.js';
import { addIngress, listFilters, type Match, removeFilter, removeIngress, setFilter } from './tc.js';

/** A machine's network cards while it lives. */
export interface Attached {
  /** For the machine's configuration. */
  readonly networks: readonly NetworkConfig[];
  /** For the agent, once it is ready; undefined where there is nothing to configure. */
  readonly guest: NetworkSet | undefined;
  /** For {@link detachNetwork}, by whoever removes the container; undefined where nothing can be left. */
  readonly cleanup: NetworkCleanup | undefined;
  readonly warnings: readonly string[];
  /** Removes everything again, once. For when the machine has ended, or was never made. */
  close(): void;
}

/** What a machine has in a network namespace that others own; plain JSON. */
export interface NetworkCleanup {
  readonly namespace: string;
  readonly identity: string;
  readonly taps: readonly TapRecord[];
}

interface TapRecord {
  readonly tap: { readonly index: number; readonly name: string };
  /** The interface that it mirrors. */
  readonly link: { readonly index: number; readonly name: string };
  /** The address that the namespace has given up (./local-access.ts). */
  local?: readonly number[];
}

const TAP_NAME = /^tsvmm(\d{1,4})$/;
/** Marks our TAP devices; the index of the interface that they mirror follows. */
const TAP_ALIAS = 'tsvmm of interface ';
/** At an interface: a filter for each machine, then what keeps frames from the namespace's own stack. */
const MIRRORS = 0x6000;
const NOT_TO_THE_NAMESPACE = 0x7fff;
const MOST_TAPS = 4096;
/** At a TAP device: what is held back, then what is sent out. */
const HOLD_BACK = 0x1000;
const SEND_OUT = 0x2000;
/**
 * Where several machines have one interface, each hears every frame. One that has no socket for it must not say so to
 * the peer of one that has.
 */
const REFUSALS: readonly Match[] = ['tcp-reset-4', 'tcp-reset-6', 'unreachable-4', 'unreachable-6'];
/** One of them answers for all. */
const ECHO_REPLIES: readonly Match[] = ['echo-reply-4', 'echo-reply-6'];
/** What there is no sense in carrying over, though it looks like an interface. */
const NOT_CARRIED = new Set(['dummy', 'ifb']);
/** What a TAP device takes at most (drivers/net/tun.c: 65535 less an Ethernet header). */
const MOST_TAP_MTU = 65_521;
const EBUSY = -16;
const ENOENT = -2;

const NOTHING: Attached = {
  networks: [],
  guest: undefined,
  cleanup: undefined,
  warnings: [],
  close: () => {},
};

/**
 * Connects a machine that is about to be made. For `join` and `own` the calling thread is in the namespace, for
 * `passt` in the host's.
 * @throws UserError; nothing is left then
 */
export function attachNetwork(plan: NetworkPlan): Attached {
  switch (plan.kind) {
    case 'join':
      return attachNamespace(plan.path);
    case 'own':
      return attachNamespace(undefined);
    case 'passt':
      return attachPasst(plan);
    case 'none':
      return NOTHING;
  }
}

function attachNamespace(path: string | undefined): Attached {
  const namespace = NetworkNamespace.current();
  const where = path === undefined ? "the container's network namespace" : `network namespace ${path}`;
  try {
    return namespace.locked(() => attachLinks(namespace, where, path)) ?? closed(namespace);
  } catch (error) {
    namespace.close();
    throw error;
  }
}

function closed(namespace: NetworkNamespace): Attached {
  namespace.close();
  return NOTHING;
}

function attachLinks(
  namespace: NetworkNamespace,
  where: string,
  path: string | undefined,
): Attached | undefined {
  const links = readLinks();
  const warnings: string[] = [];
  const carried = links.filter((link) => isCarried(link, where, warnings));
  if (carried.length === 0) return warnings.length === 0 ? undefined : { ...NOTHING, warnings };
  const addresses = readAddresses();
  let guest = guestNetwork(carried, addresses, readRoutes(), readNeighbours(), warnings);
  const taps: OpenTap[] = [];
  const letGo = (): void => {
    removeTaps(taps);
    for (const { fd } of taps) closeSync(fd);
  };
  try {
    for (const link of carried) taps.push(openTap(link, links, taps, where));
    for (const tap of taps) connect(tap, where);
    const now = readLinks();
    arrange(now, where);
    for (const tap of taps) guest = letIn(tap, now, addresses, guest, where, warnings);
  } catch (error) {
    letGo();
    throw error;
  }
  let open = true;
  return {
    networks: taps.map(({ fd, mac, mtu }) => ({ tapFd: fd, mac, mtu })),
    guest,
    cleanup:
      path === undefined
        ? undefined
        : {
            namespace: path,
            identity: namespace.identity(),
            taps: taps.map(({ tap, link, local }) => ({
              tap,
              link,
              ...(local === undefined ? {} : { local }),
            })),
          },
    warnings,
    close() {
      if (!open) return;
      open = false;
      namespace.locked(letGo);
      namespace.close();
    },
  };
}

interface OpenTap extends TapRecord {
  readonly fd: number;
  /** The guest's: that of the interface. */
  readonly mac: string;
  readonly mtu: number;
}

function isCarried(link: Link, where: string, warnings: string[]): boolean {
  const { name, flags, type, kind, master } = link;
  if ((flags & IFF.LOOPBACK) !== 0 || (flags & IFF.UP) === 0 || isOurs(link) || master !== 0) return false;
  if (type !== ARPHRD_ETHER || NOT_CARRIED.has(kind)) {
    warnings.push(
      `${where}: the guest does not get ${name}: ${kind || `type ${type}`} cannot be carried over`,
    );
    return false;
  }
  return true;
}

function isOurs({ name, alias }: Link): boolean {
  return TAP_NAME.test(name) && alias.startsWith(TAP_ALIAS);
}

/** Makes the TAP device with the lowest number that is free. */
function openTap(link: Link, links: readonly Link[], taps: readonly OpenTap[], where: string): OpenTap {
  const taken = new Set([...links.map(({ name }) => name), ...taps.map(({ tap }) => tap.name)]);
  for (let number = 0; number < MOST_TAPS; number++) {
    const name = `tsvmm${number}`;
    if (taken.has(name)) continue;
    const opened = addon().openTap(name);
    if (opened === EBUSY) continue;
    if (typeof opened === 'number') {
      const remedy = opened === ENOENT ? '; as root: modprobe tun' : '';
      throw new UserError(`${where}: cannot make a TAP device: ${reasonOfErrno(opened)}${remedy}`);
    }
    const { index, fd } = opened;
    const mtu = Math.min(link.mtu, MOST_TAP_MTU);
    return {
      tap: { index, name },
      link: { index: link.index, name: link.name },
      fd,
      mac: formatMac(link.mac),
      mtu,
    };
  }
  throw new UserError(`${where}: there are ${MOST_TAPS} machines in it already`);
}

function connect({ tap, link, mtu }: OpenTap, where: string): void {
  const what = `${where}: cannot connect ${link.name}`;
  bringUpTap(tap.index, mtu, `${TAP_ALIAS}${link.index}`, what);
  addIngress(tap.index, what);
  setFilter(tap.index, SEND_OUT, 'all', { redirect: link.index }, what);
  addIngress(link.index, what);
  setFilter(link.index, NOT_TO_THE_NAMESPACE, 'all', 'drop', what);
  setFilter(link.index, mirrorOf(tap.name), 'all', { mirror: tap.index }, what);
}

/** Where programs of the namespace have to reach the guest, they get a way to it. Without, the machine has its network all the same. */
function letIn(
  open: OpenTap,
  links: readonly Link[],
  addresses: readonly Address[],
  guest: NetworkSet,
  where: string,
  warnings: string[],
): NetworkSet {
  const tap = links.find(({ index }) => index === open.tap.index);
  const link = links.find(({ index }) => index === open.link.index);
  const address = link === undefined ? undefined : localAddress(link, addresses);
  if (tap === undefined || link === undefined || address === undefined) return guest;
  try {
    openLocalAccess(tap, link, address, `${where}: programs in it cannot reach the guest`);
  } catch (error) {
    abandonLocalAccess(tap, link, address);
    warnings.push(messageOf(error));
    return guest;
  }
  open.local = [...address];
  return withLocalAccess(guest, link.name, tap);
}

function mirrorOf(tap: string): number {
  return MIRRORS + Number(TAP_NAME.exec(tap)?.[1] ?? 0);
}

function isMirror(preference: number): boolean {
  return preference >= MIRRORS && preference < MIRRORS + MOST_TAPS;
}

/** What each machine has to hold back follows from how many share an interface. */
function arrange(links: readonly Link[], where: string): void {
  const groups = new Map<string, Link[]>();
  for (const link of links.filter(isOurs)) {
    groups.set(link.alias, [...(groups.get(link.alias) ?? []), link]);
  }
  for (const group of groups.values()) {
    const [first, ...others] = group.sort((a, b) => mirrorOf(a.name) - mirrorOf(b.name));
    if (first === undefined) continue;
    const shared = others.length > 0;
    holdBack(first.index, shared ? REFUSALS : [], where);
    for (const { index } of others) holdBack(index, [...REFUSALS, ...ECHO_REPLIES], where);
  }
}

function holdBack(tap: number, matches: readonly Match[], where: string): void {
  const present = new Set(listFilters(tap));
  for (const [number, match] of [...REFUSALS, ...ECHO_REPLIES].entries()) {
    const at = HOLD_BACK + number;
    const wanted = matches.includes(match);
    if (wanted === present.has(at)) continue;
    if (wanted) setFilter(tap, at, match, 'drop', `${where}: cannot be shared by machines`);
    else removeFilter(tap, at, match);
  }
}

/** Takes the taps' share of what is at their interfaces away; what is last takes the rest with it. */
function removeTaps(records: readonly TapRecord[]): void {
  const links = readLinks();
  for (const { tap, link, local } of records) {
    if (!links.some(({ index, name }) => index === link.index && name === link.name)) continue;
    // Its name, and with that its filter, can be another machine's by now.
    const alias = `${TAP_ALIAS}${link.index}`;
    if (links.some((other) => other.name === tap.name && other.index !== tap.index && other.alias === alias))
      continue;
    removeFilter(link.index, mirrorOf(tap.name), 'all');
    const left = listFilters(link.index);
    if (left.some(isMirror)) continue;
    if (local !== undefined) closeLocalAccess(link.index, Uint8Array.from(local));
    removeFilter(link.index, NOT_TO_THE_NAMESPACE, 'all');
    if (left.every((at) => at === NOT_TO_THE_NAMESPACE)) removeIngress(link.index);
  }
  const gone = new Set(records.map(({ tap }) => tap.index));
  arrange(
    links.filter(({ index }) => !gone.has(index)),
    'network',
  );
}

/**
 * Removes what a container's machine has left in a network namespace, whatever became of it; for any process, at any time. What
 * is gone already is as well.
 * @throws UserError where the namespace may not be entered
 */
export function detachNetwork(cleanup: NetworkCleanup | undefined): void {
  if (cleanup === undefined) return;
  const namespace = NetworkNamespace.open(cleanup.namespace);
  if (namespace === undefined) return;
  try {
    if (namespace.identity() !== cleanup.identity) return;
    namespace.within(cleanup.namespace, () => namespace.locked(() => removeTaps(cleanup.taps)));
  } finally {
    namespace.close();
  }
}
