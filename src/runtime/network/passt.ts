import { accessSync, constants, readFileSync } from 'node:fs';
import { UserError } from '../errors.js';
import { formatAddress, formatMac, linkLocalOf, networkOf } from './address.js';
import type { Attached } from './attach.js';
import type { GuestAddress, GuestRoute, NetworkSet } from './guest-network.js';
import type { NetworkPlan } from './plan.js';
import { type Address, AF, type Route, readAddresses, readRoutes } from './rtnetlink.js';

/** Each passt is a wire of its own, so that all guests can have one address: 02, `tsvmm`. */
const MAC = Uint8Array.of(0x02, 0x74, 0x73, 0x76, 0x6d, 0x6d);
const INTERFACE = 'eth0';
/** passt has no packets on a real wire, so that they can be as large as they get. */
const MTU = 65_520;
/** Where the guest finds a resolver that listens on the host's loopback. */
const RESOLVER = '169.254.1.53';
const LINK_SCOPE = 253;
const GLOBAL_SCOPE = 0;
const LINK_LOCAL_PREFIX = 64;
const MAX_RESOLV_CONF = 64 << 10;

type PasstPlan = Extract<NetworkPlan, { kind: 'passt' }>;

/** The host's side of one family: what the guest gets as its own. */
interface Outside {
  readonly address: Address;
  readonly gateway: Uint8Array | undefined;
}

/**
 * A machine on passt: it has the host's addresses, and its gateway and resolvers. Where there is no passt, or the host
 * has no way out itself, the guest has a loopback only.
 * @throws UserError for that where passt is asked for by name
 */
export function attachPasst(plan: PasstPlan): Attached {
  if (!isInstalled(plan.program)) {
    return nothing(plan, `${plan.program} is not installed (on Debian: apt-get install passt)`, true);
  }
  const { outside4, outside6 } = findOutside(readRoutes(), readAddresses());
  if (outside4 === undefined && outside6 === undefined)
    return nothing(plan, 'the host has no default route', false);
  const { text, forward } = guestResolvers(readResolvers());
  const both = [outside4, outside6].filter((outside) => outside !== undefined);
  const options = [
    ...both.flatMap(({ address, gateway }) => [
      ...['-a', formatAddress(address.address)],
      ...(gateway === undefined ? [] : ['-g', formatAddress(gateway)]),
    ]),
    ...(forward ? ['--dns-forward', RESOLVER] : []),
    ...['--no-dhcp', '--no-dhcpv6', '--no-ra'],
  ];
  return {
    networks: [
      {
        passt: { program: plan.program, arguments: [...options, ...plan.arguments] },
        mac: formatMac(MAC),
        mtu: MTU,
      },
    ],
    guest: passtGuest(outside4, outside6, text),
    cleanup: undefined,
    warnings: [],
    close() {},
  };
}

function nothing(plan: PasstPlan, why: string, warn: boolean): Attached {
  if (plan.required) throw new UserError(`network: passt: ${why}`);
  const warnings = warn ? [`network: the container has a loopback only: ${why}`] : [];
  return { networks: [], guest: undefined, cleanup: undefined, warnings, close() {} };
}

function isInstalled(program: string): boolean {
  const folders = program.includes('/')
    ? ['']
    : (process.env.PATH ?? '').split(':').map((path) => `${path}/`);
  return folders.some((folder) => {
    try {
      accessSync(folder + program, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The interface with the first default route of each family: the one that passt takes as well. */
export function findOutside(
  routes: readonly Route[],
  addresses: readonly Address[],
): { outside4: Outside | undefined; outside6: Outside | undefined } {
  const find = (family: number): Outside | undefined => {
    for (const route of routes) {
      if (route.family !== family || route.destination !== 'default' || route.link === 0) continue;
      const address = addresses.find(
        ({ link, scope, ...other }) =>
          other.family === family && link === route.link && scope === GLOBAL_SCOPE,
      );
      if (address !== undefined) return { address, gateway: route.gateway };
    }
    return undefined;
  };
  return { outside4: find(AF.INET), outside6: find(AF.INET6) };
}

/** What the guest has to configure for itself. */
export function passtGuest(
  outside4: Outside | undefined,
  outside6: Outside | undefined,
  resolvConf: string,
): NetworkSet {
  const addresses: GuestAddress[] = [];
  const routes: GuestRoute[] = [];
  const device = INTERFACE;
  for (const [family, outside] of [[4, outside4] as const, [6, outside6] as const]) {
    if (outside === undefined) continue;
    const { address, prefix } = outside.address;
    addresses.push({ address: formatAddress(address), prefix });
    const destination = `${formatAddress(networkOf(address, prefix))}/${prefix}`;
    const scope = family === 4 ? { scope: LINK_SCOPE } : {};
    routes.push({ destination, family, device, ...scope });
    const { gateway } = outside;
    const way = gateway === undefined ? scope : { gateway: formatAddress(gateway), onlink: true };
    routes.push({ destination: 'default', family, device, ...way });
  }
  if (outside6 !== undefined) {
    addresses.push({
      address: formatAddress(linkLocalOf(MAC)),
      prefix: LINK_LOCAL_PREFIX,
      scope: LINK_SCOPE,
    });
    routes.push({ destination: `fe80::/${LINK_LOCAL_PREFIX}`, family: 6, device });
  }
  return {
    interfaces: [{ name: INTERFACE, mac: formatMac(MAC), mtu: MTU, addresses }],
    routes,
    neighbours: [],
    resolvConf,
  };
}

function readResolvers(): string {
  try {
    return readFileSync('/etc/resolv.conf', 'utf8').slice(0, MAX_RESOLV_CONF);
  } catch {
    return '';
  }
}

/**
 * The host's resolv.conf as the guest needs it. A resolver on the host's loopback becomes one that passt forwards to the
 * host's first; one that is reached by a certain interface of the host is left out.
 */
export function guestResolvers(text: string): { readonly text: string; readonly forward: boolean } {
  const lines: string[] = [];
  let forward = false;
  for (const line of text.split('\n')) {
    const [keyword, address = ''] = line.trim().split(/\s+/);
    if (keyword === 'nameserver' && /^127\.|^::1$/.test(address)) {
      if (!forward) lines.push(`nameserver ${RESOLVER}`);
      forward = true;
    } else if (
      keyword === 'nameserver'
        ? !address.includes('%')
        : /^(search|domain|options|sortlist)$/.test(keyword ?? '')
    ) {
      lines.push(line.trim());
    }
  }
  return { text: lines.map((line) => `${line}\n`).join(''), forward };
}
