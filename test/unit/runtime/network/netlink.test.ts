import t from 'tap';
import { formatAddress, formatMac, linkLocalOf, networkOf } from '../../../../src/runtime/network/address.js';
import { Attributes, MessageReader, MessageWriter, words } from '../../../../src/runtime/network/netlink.js';
import {
  parseAddress,
  parseLink,
  parseNeighbour,
  parseRoute,
} from '../../../../src/runtime/network/rtnetlink.js';

const hex = (text: string): Uint8Array => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

/** A message with its fixed part and attributes, as the kernel would send it. */
function message(
  type: number,
  fixed: readonly number[],
  write: (message: MessageWriter) => void,
): Uint8Array {
  const writer = new MessageWriter(type, 0, Uint8Array.from(fixed));
  write(writer);
  return writer.finish();
}

t.test('a message is its header, the fixed part and padded attributes', async (t) => {
  const writer = new MessageWriter(44, 0x600, words(0, 2, -1));
  writer.string(1, 'abc').u8(2, 7).be16(8, 0x0800);
  writer.nested(3, () => writer.nested(1, () => writer.u32(5, 0x01020304)));
  t.same(
    Buffer.from(writer.finish()).toString('hex'),
    Buffer.from(
      hex(`
        44000000 2c00 0006 00000000 00000000   00000000 02000000 ffffffff
        0800 0100 61626300   0500 0200 07000000   0600 0800 08000000
        1000 0300  0c00 0100  0800 0500 04030201`),
    ).toString('hex'),
  );
});

t.test('a message of any length is written whole', async (t) => {
  const writer = new MessageWriter(1, 0, new Uint8Array(4));
  writer.nested(1, () => {
    for (let i = 0; i < 100; i++) writer.string(2, 'x'.repeat(99));
  });
  const read = new MessageReader(writer.finish(), 4);
  t.equal(read.attributes.nested(1)?.string(2), 'x'.repeat(99));
  t.equal(read.attributes.bytes(1)?.length, 100 * 104);
});

t.test('attributes that are cut off, or too short for what they should be', async (t) => {
  t.throws(() => new Attributes(hex('0800 0100 6162')), {
    message: 'netlink: an attribute of 8 bytes at 0 of 6',
  });
  t.throws(() => new Attributes(hex('0300 0100')), { message: 'netlink: an attribute of 3 bytes at 0 of 4' });
  t.throws(() => new MessageReader(new Uint8Array(20), 8), {
    message: 'netlink: a message of 20 bytes, not of 24',
  });
  const attributes = new Attributes(hex('0600 0180 01020000 0500 0200 61000000'));
  t.equal(attributes.u32(1), undefined);
  t.equal(attributes.string(2), 'a');
  t.equal(attributes.nested(3), undefined);
});

t.test('links', async (t) => {
  const link = message(16, [0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0], (link) => {
    link.string(3, 'eth0').u32(4, 1400).bytes(1, hex('02 42 ac 11 00 02')).string(20, 'an alias');
    link.nested(18, () => link.string(1, 'veth'));
  });
  t.same(parseLink(link), {
    index: 7,
    name: 'eth0',
    type: 1,
    flags: 0x11043,
    mtu: 1400,
    mac: Uint8Array.from(hex('02 42 ac 11 00 02')),
    kind: 'veth',
    master: 0,
    alias: 'an alias',
  });
});

t.test('addresses: a peer is told from the address, and a duplicate is none', async (t) => {
  const one = (flags: number, ...attributes: [number, string][]): Uint8Array =>
    message(20, [2, 24, 0, 0, 7, 0, 0, 0], (address) => {
      for (const [type, value] of attributes) address.bytes(type, hex(value));
      address.u32(8, flags);
    });
  const plain = parseAddress(one(0x80, [1, '0a010203'], [2, '0a010203'], [4, '0a0102ff']));
  t.match(plain, { link: 7, family: 2, prefix: 24, peer: undefined });
  t.same(Buffer.from(plain?.broadcast ?? []).toString('hex'), '0a0102ff');
  const pointToPoint = parseAddress(one(0x80, [1, '0a010201'], [2, '0a010203']));
  t.same(Buffer.from(pointToPoint?.peer ?? []).toString('hex'), '0a010201');
  t.equal(parseAddress(one(0x08, [1, '0a010203'])), undefined);
});

t.test('routes: those of the main table', async (t) => {
  const one = (table: number, flags: number, write: (route: MessageWriter) => void): Uint8Array =>
    message(24, [2, 16, 0, 0, table, 3, 0, 1, flags, 0, 0, 0], write);
  const via = one(254, 4, (route) => {
    route.bytes(1, hex('0a090000')).u32(4, 7).bytes(5, hex('0a010209')).bytes(7, hex('0a010203')).u32(6, 9);
    route.nested(8, () => route.u32(2, 1300));
  });
  t.match(parseRoute(via), {
    destination: '10.9.0.0/16',
    link: 7,
    metric: 9,
    onlink: true,
    mtu: 1300,
    multipath: false,
  });
  t.equal(parseRoute(one(255, 0, () => {})), undefined);
  const other = parseRoute(
    one(254, 0, (route) => route.u32(4, 7).bytes(18, hex(`0a00 fe80${'00'.repeat(13)}01`))),
  );
  t.equal(formatAddress(other?.gateway ?? hex('')), 'fe80::1');
  const several = parseRoute(
    one(254, 0, (route) =>
      route.bytes(9, hex('1000 0400 07000000 0800 0500 0a010201  1000 0000 08000000 0800 0500 0a010202')),
    ),
  );
  t.match(several, { destination: 'default', link: 7, onlink: true, multipath: true });
  t.equal(formatAddress(several?.gateway ?? hex('')), '10.1.2.1');
});

t.test('neighbours: the permanent ones', async (t) => {
  const one = (state: number): Uint8Array =>
    message(28, [2, 0, 0, 0, 7, 0, 0, 0, state, 0, 0, 0], (neighbour) =>
      neighbour.bytes(1, hex('0a010201')).bytes(2, hex('020000000001')),
    );
  t.match(parseNeighbour(one(0x80)), { link: 7 });
  t.equal(parseNeighbour(one(0x02)), undefined);
});

t.test('addresses as text', async (t) => {
  const v6 = (text: string): string => formatAddress(hex(text));
  t.equal(formatAddress(Uint8Array.of(10, 0, 0, 1)), '10.0.0.1');
  t.equal(v6('00000000000000000000000000000000'), '::');
  t.equal(v6('00000000000000000000000000000001'), '::1');
  t.equal(v6('fd000000000000000000000000000000'), 'fd00::');
  t.equal(v6('20010db8000000010000000000000001'), '2001:db8:0:1::1');
  t.equal(v6('20010db8000000010001000100010001'), '2001:db8:0:1:1:1:1:1');
  t.throws(() => formatAddress(new Uint8Array(5)), RangeError);
  t.equal(formatMac(hex('0242ac110002')), '02:42:ac:11:00:02');
  t.equal(formatAddress(networkOf(Uint8Array.of(10, 1, 130, 3), 17)), '10.1.128.0');
  t.equal(formatAddress(linkLocalOf(hex('0242ac110002'))), 'fe80::42:acff:fe11:2');
});
