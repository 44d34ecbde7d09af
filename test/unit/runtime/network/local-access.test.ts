import t from 'tap';
import { localAddress, withLocalAccess } from '../../../../src/runtime/network/local-access.js';
import type { Address, Link } from '../../../../src/runtime/network/rtnetlink.js';

const TAP: Link = {
  index: 7,
  name: 'tsvmm0',
  type: 1,
  flags: 1,
  mtu: 1500,
  mac: Uint8Array.of(2, 0, 0, 0, 0, 7),
  kind: 'tun',
  master: 0,
  alias: '',
};

function address(link: number, bytes: readonly number[], scope = 0): Address {
  return {
    link,
    family: bytes.length === 4 ? 2 : 10,
    address: Uint8Array.from(bytes),
    prefix: 24,
    scope,
    broadcast: undefined,
    peer: undefined,
  };
}

t.test('of the interface that slirp4netns makes, the first IPv4 address is given up', async (t) => {
  const addresses = [
    address(3, [10, 0, 0, 1]),
    address(7, new Array(16).fill(0xfd)),
    address(7, [169, 254, 3, 3], 253),
    address(7, [10, 0, 2, 100]),
  ];
  t.same(localAddress(TAP, addresses), Uint8Array.of(10, 0, 2, 100));
  t.equal(localAddress({ ...TAP, kind: 'veth' }, addresses), undefined, 'ports come from the other end');
  t.equal(localAddress({ ...TAP, index: 8 }, addresses), undefined);
});

t.test('the guest gets a way back to the namespace, beside its own', async (t) => {
  const route = { destination: 'default', family: 4, gateway: '10.0.2.2', device: 'tap0' } as const;
  const neighbour = { address: '10.0.2.9', mac: '02:00:00:00:00:09', device: 'tap0' };
  const guest = { interfaces: [], routes: [route], neighbours: [neighbour], resolvConf: 'x' };
  t.same(withLocalAccess(guest, 'tap0', TAP), {
    ...guest,
    routes: [route, { destination: '169.254.0.54/32', family: 4, device: 'tap0', scope: 253 }],
    neighbours: [neighbour, { address: '169.254.0.54', mac: '02:00:00:00:00:07', device: 'tap0' }],
  });
});
