import { mkdirSync, writeFileSync } from 'node:fs';
import t from 'tap';
import type { Attached } from '../../../../src/runtime/network/attach.js';
import { guestNetwork } from '../../../../src/runtime/network/guest-network.js';
import { setGuestNetwork } from '../../../../src/runtime/network/guest-spec.js';
import { findOutside, guestResolvers, passtGuest } from '../../../../src/runtime/network/passt.js';
import { type NetworkPlan, planNetwork } from '../../../../src/runtime/network/plan.js';
import { namespaceResolver } from '../../../../src/runtime/network/resolver.js';
import type { Address, Link, Route } from '../../../../src/runtime/network/rtnetlink.js';
import type { Spec } from '../../../../src/runtime/spec/types.js';
import { temporaryFolder } from '../../../support/bundle.js';

type Namespaces = NonNullable<NonNullable<Spec['linux']>['namespaces']>;

const spec = (namespaces: Namespaces): Spec => ({
  ociVersion: '1.0.2',
  root: { path: 'rootfs' },
  process: { cwd: '/', args: ['sh'] },
  linux: { namespaces },
});
const SETTINGS = { network: 'auto', passt: { program: 'passt', arguments: ['-t', '80'] } } as const;

function plan(
  namespaces: Namespaces,
  wish: { network?: 'auto' | 'passt' | 'none'; rootless?: boolean; command?: 'run' | 'create' } = {},
): NetworkPlan {
  const { network = 'auto', rootless = false, command = 'create' } = wish;
  return planNetwork({ spec: spec(namespaces), settings: { ...SETTINGS, network }, rootless, command });
}

t.test('how a container gets its network', async (t) => {
  const own: Namespaces = [{ type: 'network' }];
  const passt = { kind: 'passt', required: false, ...SETTINGS.passt };
  // Another kind of namespace on the same file system; whether it can be joined is for the kernel to say.
  const other: Namespaces = [{ type: 'pid' }, { type: 'network', path: '/proc/self/ns/uts' }];
  t.same(plan(own), { kind: 'own' });
  t.same(plan(own, { rootless: true }), { kind: 'none' });
  t.same(plan(own, { network: 'passt' }), { ...passt, required: true });
  t.same(plan(own, { network: 'none' }), { kind: 'none' });
  t.same(plan(other), { kind: 'join', path: '/proc/self/ns/uts' });
  t.same(plan(other, { network: 'none' }), { kind: 'join', path: '/proc/self/ns/uts' });
  t.same(plan([], { command: 'run' }), passt);
  t.same(plan([], { rootless: true }), passt);
  t.same(plan([], { network: 'passt' }), { ...passt, required: true });
  t.same(plan([], { network: 'none' }), { kind: 'none' });
});

t.test("the host's network cannot be had, and a namespace has to be one", async (t) => {
  const host = /^the bundle asks for the host's network.*io\.tsvmm\.network: passt/;
  t.throws(() => plan([]), { name: 'UserError', message: host });
  t.throws(() => plan([{ type: 'network', path: '/proc/self/ns/net' }]), { message: host });
  const at =
    (path: string): (() => NetworkPlan) =>
    () =>
      plan([{ type: 'pid' }, { type: 'network', path }]);
  t.throws(at('/nowhere'), {
    message: 'config.json: linux.namespaces[1].path: /nowhere: no such file or folder',
  });
  t.throws(at('/etc/passwd'), {
    message: 'config.json: linux.namespaces[1].path: /etc/passwd is no network namespace',
  });
});

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const link = (index: number, name: string, more: Partial<Link> = {}): Link => ({
  index,
  name,
  type: 1,
  flags: 0x1043,
  mtu: 1500,
  mac: bytes(2, 0, 0, 0, 0, index),
  kind: 'veth',
  master: 0,
  alias: '',
  ...more,
});
const address = (index: number, more: Partial<Address> = {}): Address => ({
  link: index,
  family: 2,
  address: bytes(10, 0, 0, index),
  prefix: 24,
  scope: 0,
  broadcast: undefined,
  peer: undefined,
  ...more,
});
const route = (index: number, more: Partial<Route> = {}): Route => ({
  family: 2,
  destination: 'default',
  link: index,
  gateway: undefined,
  source: undefined,
  metric: 0,
  scope: 0,
  protocol: 3,
  type: 1,
  onlink: false,
  mtu: 0,
  multipath: false,
  ...more,
});

t.test(
  'what the guest configures is what the namespace has of the interfaces that are carried over',
  async (t) => {
    const warnings: string[] = [];
    const set = guestNetwork(
      [link(2, 'eth0'), link(3, 'net1', { flags: 0x10c3, mtu: 1400 })],
      [
        address(1),
        address(2, { broadcast: bytes(10, 0, 0, 255) }),
        address(3, { scope: 253, peer: bytes(10, 0, 0, 9) }),
      ],
      [
        route(2, { gateway: bytes(10, 0, 0, 1), multipath: true }),
        route(3, {
          destination: '10.5.0.0/16',
          source: bytes(10, 0, 0, 3),
          scope: 253,
          metric: 5,
          mtu: 1300,
        }),
        route(4),
        route(0, { destination: '10.6.0.0/16', type: 6 }),
        route(1, { family: 10, type: 7, metric: 0xffffffff }),
        route(2, { type: 5 }),
      ],
      [
        { link: 2, address: bytes(10, 0, 0, 1), mac: bytes(2, 0, 0, 0, 0, 1) },
        { link: 9, address: bytes(10, 0, 0, 1), mac: bytes(2, 0, 0, 0, 0, 1) },
      ],
      warnings,
    );
    t.same(set, {
      interfaces: [
        {
          name: 'eth0',
          mac: '02:00:00:00:00:02',
          mtu: 1500,
          addresses: [{ address: '10.0.0.2', prefix: 24, broadcast: '10.0.0.255' }],
        },
        {
          name: 'net1',
          mac: '02:00:00:00:00:03',
          mtu: 1400,
          arp: false,
          addresses: [{ address: '10.0.0.3', prefix: 24, peer: '10.0.0.9', scope: 253 }],
        },
      ],
      routes: [
        { destination: 'default', family: 4, gateway: '10.0.0.1', device: 'eth0', protocol: 3 },
        {
          destination: '10.5.0.0/16',
          family: 4,
          device: 'net1',
          source: '10.0.0.3',
          metric: 5,
          scope: 253,
          protocol: 3,
          mtu: 1300,
        },
        { destination: '10.6.0.0/16', family: 4, type: 'blackhole', protocol: 3 },
      ],
      neighbours: [{ address: '10.0.0.1', mac: '02:00:00:00:00:01', device: 'eth0' }],
    });
    t.same(warnings, ['the route to default has several next hops; the guest gets the first']);
  },
);

t.test("passt: the guest has the host's addresses and ways", async (t) => {
  const six = Uint8Array.from(Buffer.from('20010db8000000000000000000000010', 'hex'));
  const gateway6 = Uint8Array.from(Buffer.from('fe800000000000000000000000000001', 'hex'));
  const { outside4, outside6 } = findOutside(
    [
      route(2, { destination: '10.0.0.0/24' }),
      route(3, { gateway: bytes(10, 0, 0, 1) }),
      route(2, { family: 10, gateway: gateway6 }),
    ],
    [
      address(2),
      address(3, { scope: 253 }),
      address(3),
      address(2, { family: 10, address: six, prefix: 64 }),
    ],
  );
  const set = passtGuest(outside4, outside6, 'nameserver 192.0.2.1\n');
  t.same(set.interfaces[0]?.addresses, [
    { address: '10.0.0.3', prefix: 24 },
    { address: '2001:db8::10', prefix: 64 },
    { address: 'fe80::74:73ff:fe76:6d6d', prefix: 64, scope: 253 },
  ]);
  t.same(set.routes, [
    { destination: '10.0.0.0/24', family: 4, device: 'eth0', scope: 253 },
    { destination: 'default', family: 4, device: 'eth0', gateway: '10.0.0.1', onlink: true },
    { destination: '2001:db8::/64', family: 6, device: 'eth0' },
    { destination: 'default', family: 6, device: 'eth0', gateway: 'fe80::1', onlink: true },
    { destination: 'fe80::/64', family: 6, device: 'eth0' },
  ]);
  t.same(findOutside([route(2)], []), { outside4: undefined, outside6: undefined });
});

t.test("passt: the host's resolvers as the guest can reach them", async (t) => {
  const host =
    '# a comment\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.7\nnameserver fe80::1%eth0\n';
  t.same(guestResolvers(`${host}search example.org\noptions edns0 trust-ad\n`), {
    text: 'nameserver 169.254.1.53\nnameserver 192.0.2.7\nsearch example.org\noptions edns0 trust-ad\n',
    forward: true,
  });
  t.same(guestResolvers('nameserver 192.0.2.7'), { text: 'nameserver 192.0.2.7\n', forward: false });
  t.same(guestResolvers(''), { text: '', forward: false });
});

t.test("the guest's configuration: the machine's namespace and resolvers", async (t) => {
  const attached = (resolvConf?: string): Attached => ({
    networks: [{ tapFd: 3 }],
    guest: {
      interfaces: [],
      routes: [],
      neighbours: [],
      ...(resolvConf === undefined ? {} : { resolvConf }),
    },
    cleanup: undefined,
    warnings: [],
    close() {},
  });
  const folder = temporaryFolder(t);
  const own = (): Spec => spec([{ type: 'network' }, { type: 'pid' }]);

  const joined = own();
  setGuestNetwork(joined, attached(), folder);
  t.same(joined, spec([{ type: 'network', path: '/proc/1/ns/net' }, { type: 'pid' }]));
  const without = own();
  setGuestNetwork(without, { ...attached('x'), networks: [] }, folder);
  t.same(without, own());

  const mounted = (change: Partial<Spec>, rootfs: string | undefined = folder): number => {
    const changed = { ...own(), ...change };
    setGuestNetwork(changed, attached('nameserver 192.0.2.7\n'), rootfs);
    return changed.mounts?.filter(({ source }) => source === '/run/tsvmm-resolv.conf').length ?? 0;
  };
  const readonly = { root: { path: 'rootfs', readonly: true } };
  t.equal(mounted({}), 0, 'no /etc');
  mkdirSync(`${folder}/etc`);
  t.equal(mounted({}), 1);
  t.equal(mounted(readonly), 0, 'nothing to mount on');
  writeFileSync(`${folder}/etc/resolv.conf`, '');
  t.equal(mounted(readonly), 1);
  t.equal(mounted({ mounts: [{ destination: '/etc/resolv.conf', type: 'bind', source: '/x' }] }), 0);
  t.equal(mounted({ mounts: [{ destination: '/etc/', type: 'bind', source: '/x' }] }), 0);
  t.equal(mounted({ mounts: [{ destination: '/etc/hosts', type: 'bind', source: '/x' }] }), 1);
  const image = own();
  setGuestNetwork(image, attached(''), undefined);
  t.equal(image.mounts?.length, 1);
});

t.test('a name server on the loopback of the namespace', async (t) => {
  const folder = temporaryFolder(t);
  const found = (text: string, source = 'resolv.conf'): string | undefined => {
    writeFileSync(`${folder}/resolv.conf`, text);
    return namespaceResolver({ ...spec([]), mounts: [{ destination: '/etc/resolv.conf', source }] }, folder);
  };
  t.equal(found('search a\nnameserver 127.0.0.11\noptions ndots:0\n'), '127.0.0.11');
  t.equal(found('nameserver 127.0.0.11', `${folder}/resolv.conf`), '127.0.0.11');
  t.equal(found('nameserver 10.0.0.1\n'), undefined);
  t.equal(found('# nameserver 127.0.0.11\nnameserver 127.0.0.1.5\n'), undefined);
  t.equal(found('nameserver 127.0.0.11\n', 'elsewhere'), undefined);
  t.equal(namespaceResolver(spec([]), folder), undefined);
});
