import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { type ConsoleOptions, type ConsolePort, describeConsole } from '../../../src/virtio/console/index.js';
import { describeRng, type RngOptions } from '../../../src/virtio/rng/index.js';

function portOf(options: Partial<ConsoleOptions>, name: string): ConsolePort {
  const port = describeConsole({ name: 'console', ...options }).ports.get(name);
  if (port === undefined) throw new Error(`no port ${name}`);
  return port;
}

t.test('describes a console with one terminal', async (t) => {
  const { description, ports } = describeConsole({ name: 'console', terminal: { columns: 132, rows: 43 } });
  t.equal(description.deviceId, 3);
  t.equal(description.features, 1n, 'VIRTIO_CONSOLE_F_SIZE');
  t.equal(description.queueSizes.length, 2);
  const config = new DataView(description.config.buffer);
  t.equal(config.getUint16(0, true), 132);
  t.equal(config.getUint16(2, true), 43);
  const terminal = ports.get('console');
  t.equal(terminal?.isConsole, true);
  t.equal(terminal?.isOpen, false);
  terminal?.resize(80, 24);
  await t.rejects(
    () => portOf({ terminal: {} }, 'console').stream(),
    /port console: it is on descriptors, and no stream/,
  );
});

t.test('describes a console with ports', async (t) => {
  const { description, ports } = describeConsole({
    name: 'console',
    terminal: {},
    ports: [{ name: 'agent' }, { name: 'second', console: true, output: 1 }],
  });
  t.equal(description.features, 3n, 'SIZE and MULTIPORT');
  t.equal(description.queueSizes.length, 8);
  t.equal(new DataView(description.config.buffer).getUint32(4, true), 3);
  t.same([...ports.keys()], ['console', 'agent', 'second']);
  t.same(
    [...ports.values()].map(({ isConsole }) => isConsole),
    [true, false, true],
  );
  const alone = describeConsole({ name: 'console', ports: [{ name: 'console' }] });
  t.equal(alone.description.queueSizes.length, 4);
});

t.test('a stream takes what there is room for, and ends', async (t) => {
  const port = portOf({ ports: [{ name: 'agent' }] }, 'agent');
  const stream = await port.stream();
  let written = 0;
  stream.write(Buffer.alloc(40_000), () => written++);
  stream.write(Buffer.alloc(40_000), () => written++);
  await new Promise(setImmediate);
  t.equal(written, 1, 'the second waits for the guest');
  await t.rejects(() => port.stream(), /port agent: its stream has been taken already/);
  port.close();
  t.equal(stream.destroyed, true);
  const other = portOf({ ports: [{ name: 'agent' }] }, 'agent');
  other.close();
  await t.rejects(() => other.stream(), /port agent: the machine was closed/);
});

t.test('bad options', async (t) => {
  const null_ = openSync('/dev/null', 'r');
  t.teardown(() => closeSync(null_));
  const bad = (options: Partial<ConsoleOptions>, message: RegExp): void => {
    t.throws(() => describeConsole({ name: 'console', ...options }), message);
  };
  bad({ name: '', terminal: {} }, /console: name: /);
  bad({}, /console console: expected a terminal or ports, got neither/);
  bad({ terminal: { input: -1 } }, /console console: input: expected a whole number from 0/);
  bad({ terminal: { input: 1.5 } }, /console console: input: /);
  bad({ terminal: { output: -1 } }, /console console: output: /);
  bad({ terminal: { input: 123_456 } }, /descriptor 123456: not open/);
  bad({ terminal: { output: null_ } }, /descriptor \d+: not open for writing/);
  bad({ terminal: { columns: 65_536 } }, /console console: columns: expected a whole number from 0 to 65535/);
  bad({ terminal: { rows: -1 } }, /console console: rows: /);
  bad({ ports: [{ name: 'a', output: -1 }] }, /console console: port a: output: /);
  bad({ ports: [{ name: '' }] }, /console console: ports: name: expected 1 to 32 of the characters/);
  bad({ ports: [{ name: '../x' }] }, /ports: name: expected 1 to 32 .*got "\.\.\/x"/);
  bad({ ports: [{ name: 'a' }, { name: 'a' }] }, /ports: the name 'a' is used twice/);
  bad({ terminal: {}, ports: [{ name: 'console' }] }, /ports: the name 'console' is used twice/);
  const many = Array.from({ length: 31 }, (_, n) => ({ name: `p${n}` }));
  bad({ ports: many }, /ports: expected at most 30, got 31/);
  describeConsole({ name: 'console', terminal: { input: null_ } });
  const port = portOf({ terminal: {} }, 'console');
  t.throws(() => port.resize(-1, 5), /port console: columns: /);
  t.throws(() => port.resize(5, 1e9), /port console: rows: /);
});

t.test('describes the entropy source', async (t) => {
  const described = describeRng({ name: 'rng' });
  t.equal(described.deviceId, 4);
  t.equal(described.queueSizes.length, 1);
  t.equal(described.config.length, 0);
  const bad = (options: Partial<RngOptions>, message: RegExp): void => {
    t.throws(() => describeRng({ name: 'rng', ...options }), message);
  };
  bad({ name: '' }, /entropy source: name: /);
  bad({ bytesPerSecond: -1 }, /entropy source rng: bytesPerSecond: expected a whole number from 0/);
  bad({ bytesPerSecond: 1, bytesBurst: 0.5 }, /entropy source rng: bytesBurst: expected a whole number/);
  bad({ bytesBurst: 4096 }, /entropy source rng: bytesBurst: only with bytesPerSecond/);
  describeRng({ name: 'rng', bytesPerSecond: 4096, bytesBurst: 1 });
});
