import { openSync } from 'node:fs';
import t from 'tap';
import { describeNet, type NetOptions } from '../../../src/virtio/net/index.js';
import { macFrom, parseMac } from '../../../src/virtio/net/mac.js';

// Needs neither passt nor rights: any program does where passt would be started.
const passt = { program: '/bin/true' };

t.test('describes a card on a user-mode network', async (t) => {
  const nic = await describeNet({ name: 'net0', passt, mac: '52:54:00:12:34:56', link: false });
  t.teardown(() => nic.close());
  const { description } = nic;
  t.equal(description.deviceId, 1);
  t.same(description.queueSizes, [256, 256, 64]);
  t.equal(description.features & 0b11n, 0n, 'no checksum offload without a TAP device');
  t.equal(description.features & (1n << 15n), 1n << 15n, 'mergeable buffers');
  t.equal(description.features & (1n << 22n), 0n, 'one pair of queues');
  const config = new DataView(description.config.buffer);
  t.same([...description.config.subarray(0, 6)], [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
  t.equal(config.getUint16(6, true), 0, 'the cable is not plugged');
  t.equal(config.getUint16(8, true), 1);
  t.equal(config.getUint16(10, true), 65_520);
  t.equal(nic.mtu, 65_520);
  t.equal(nic.tap, undefined);
  nic.setLink(true);
});

t.test('why passt has ended is heard, and closing it is no such end', async (t) => {
  const ended: string[] = [];
  const heard = new Promise<void>((resolve) => {
    const onEnd = (why: string): void => {
      ended.push(why);
      resolve();
    };
    describeNet({ name: 'net0', passt: { program: '/bin/ls' }, onEnd }).then((nic) =>
      t.teardown(() => nic.close()),
    );
  });
  const keep = setTimeout(() => {}, 60_000); // what is awaited does not keep the process alive
  await heard;
  clearTimeout(keep);
  t.match(ended[0], /^\/bin\/ls has ended \(status 2\): .*unrecognized option '--foreground'/);
});

t.test('passt is not there', async (t) => {
  await t.rejects(
    describeNet({ name: 'net0', passt: { program: 'passt-that-is-not-there' } }),
    new Error('network: passt-that-is-not-there is not installed; on Debian: apt-get install passt'),
  );
  await t.rejects(describeNet({ name: 'net0', passt: { program: '/etc/passwd' } }), /cannot be started/);
});

t.test('addresses', async (t) => {
  t.same([...parseMac('x', 'aA:00:00:00:00:01')], [0xaa, 0, 0, 0, 0, 1]);
  t.equal(macFrom('host/tap0'), macFrom('host/tap0'));
  t.not(macFrom('host/tap0'), macFrom('host/tap1'));
  t.match(macFrom(''), /^02(:[0-9a-f]{2}){5}$/);
  for (const bad of [
    '',
    '52:54:00:12:34',
    '52:54:00:12:34:56:78',
    '52-54-00-12-34-56',
    '01:00:00:00:00:01',
    '00:00:00:00:00:00',
    '5254.0012.3456',
  ]) {
    t.throws(() => parseMac('network net0: mac', bad), /^network net0: mac: expected a unicast address/);
  }
});

t.test('bad options', async (t) => {
  const file = openSync('/dev/null', 'r');
  const bad = (options: Partial<NetOptions> | object, message: RegExp | string): Promise<unknown> =>
    t.rejects(describeNet({ name: 'net0', ...options } as NetOptions), { message });
  await bad({}, 'network net0: expected one of tap, tapFd, passt and streamFd, got none');
  await bad({ passt, tap: 'tap0' }, /got tap and passt$/);
  await bad({ passt, name: '' }, /^network: name: /);
  await bad({ passt, queues: 2 }, /^network net0: queues: several are only possible with a TAP device/);
  await bad({ passt, queues: 9 }, /^network net0: queues: expected a whole number from 1 to 8, got 9/);
  await bad({ passt, queueSize: 100 }, /^network net0: queueSize: expected a power of two/);
  await bad({ passt, queueSize: 2048 }, /^network net0: queueSize: /);
  await bad({ passt, mtu: 67 }, /^network net0: mtu: expected a whole number from 68 to 65535, got 67/);
  await bad({ passt, mac: 'x' }, /^network net0: mac: /);
  await bad({ passt, toGuest: { bytesPerSecond: -1 } }, /^network net0: toGuest: bytesPerSecond: /);
  await bad({ passt, fromGuest: { packetsBurst: 0.5 } }, /^network net0: fromGuest: packetsBurst: /);
  for (const tap of ['', 'a name', 'a/b', 'tap%d', 'sixteen-letters-', '..']) {
    await bad({ tap }, /^network net0: tap: expected an interface's name of 1 to 15 characters/);
  }
  await bad({ tapFd: -1 }, /^network net0: tapFd: /);
  await bad({ tapFd: [] }, /^network net0: queues: |tapFd/);
  await bad({ tapFd: file }, /^tap descriptor \d+: is no TAP device/);
  await bad({ tapFd: 123_456 }, /^tap descriptor 123456: is not open/);
  await bad({ tapFd: [file, file], queues: 1 }, /^network net0: queues: 1, but tapFd has 2/);
  await bad({ streamFd: file }, /^descriptor \d+: is no stream socket/);
});
