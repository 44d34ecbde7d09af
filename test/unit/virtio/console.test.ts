import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { type ConsoleOptions, describeConsole } from '../../../src/virtio/console/index.js';
import { describeRng } from '../../../src/virtio/rng/index.js';

t.test('describes the console', async (t) => {
  const described = describeConsole({ name: 'console', columns: 132, rows: 43 });
  t.equal(described.deviceId, 3);
  t.equal(described.features, 1n, 'VIRTIO_CONSOLE_F_SIZE');
  t.equal(described.queueSizes.length, 2);
  const config = new DataView(described.config.buffer);
  t.equal(config.getUint16(0, true), 132);
  t.equal(config.getUint16(2, true), 43);
  described.resize(80, 24);
});

t.test('input that is pushed is bounded, and ends', async (t) => {
  const described = describeConsole({ name: 'console', input: 'push', output: () => true });
  t.equal(described.write(Buffer.alloc(40_000)), 40_000);
  t.equal(described.write(Buffer.alloc(40_000)), 65_536 - 40_000);
  t.equal(described.write(Buffer.alloc(1)), 0);
  described.end();
  described.resumeOutput();
});

t.test('input that comes from a descriptor, or not at all, is not pushed', async (t) => {
  const none = describeConsole({ name: 'console' });
  t.throws(() => none.write(Buffer.from('x')), /no input that JavaScript pushes/);
  none.end();
});

t.test('bad options', async (t) => {
  const null_ = openSync('/dev/null', 'r');
  t.teardown(() => closeSync(null_));
  const bad = (options: Partial<ConsoleOptions>, message: RegExp): void => {
    t.throws(() => describeConsole({ name: 'console', ...options }), message);
  };
  bad({ name: '' }, /console: name: /);
  bad({ input: -1 }, /console console: input: expected a whole number from 0/);
  bad({ input: 1.5 }, /console console: input: /);
  bad({ output: -1 }, /console console: output: /);
  bad({ input: 123_456 }, /descriptor 123456: not open/);
  bad({ output: null_ }, /descriptor \d+: not open for writing/);
  bad({ columns: 65_536 }, /console console: columns: expected a whole number from 0 to 65535, got 65536/);
  bad({ rows: -1 }, /console console: rows: /);
  describeConsole({ name: 'console', input: null_ });
  const described = describeConsole({ name: 'console' });
  t.throws(() => described.resize(-1, 5), /console console: columns: /);
  t.throws(() => described.resize(5, 1e9), /console console: rows: /);
});

t.test('describes the entropy source', async (t) => {
  const described = describeRng({ name: 'rng' });
  t.equal(described.deviceId, 4);
  t.equal(described.queueSizes.length, 1);
  t.equal(described.config.length, 0);
  t.throws(() => describeRng({ name: '' }), /entropy source: name: /);
});
