/** A guest that misuses devices on the bus that are written in TypeScript, and what else is on the buses. */
import { strict as assert } from 'node:assert';
import t from 'tap';
import { POWER_ADDRESS, PVPANIC_ADDRESS } from '../../../src/memory/layout.js';
import { watch } from '../../support/hostile-guest/cases.js';
import {
  type Operation,
  read,
  repeat,
  until,
  type Width,
  write,
} from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const BASE = 0xc020_0000;
const LENGTH = 0x100;
const WIDTHS: readonly Width[] = [1, 2, 4, 8];

/** What the device answers, by offset. */
const answers: (() => unknown)[] = [
  () => 0x1234_5678,
  () => {
    throw new Error('a read that throws');
  },
  () => Number.NaN,
  () => -1,
  () => 2 ** 60,
  () => 0xffff_ffff_ffff_ffffn,
  () => undefined,
  () => 'text',
  () => ({}),
];
let reads = 0;
let writes = 0;
let turns = 0;
const wrong: string[] = [];

const bench = await fullBench({
  cpus: 2,
  add(machine) {
    machine.addScriptDevice(
      'memory',
      BASE,
      LENGTH,
      (offset, size) => {
        reads++;
        if (offset + size > LENGTH) wrong.push(`a read of ${size} bytes at ${offset}`);
        return answers[offset >> 3]?.() as number;
      },
      (offset, size) => {
        writes++;
        if (offset + size > LENGTH) wrong.push(`a write of ${size} bytes at ${offset}`);
        if (offset === 8) throw new Error('a write that throws');
      },
    );
    machine.addPower(POWER_ADDRESS, PVPANIC_ADDRESS);
  },
});
const { rig } = bench;
const FLAG = 0x3d0_0000;

const attack = (name: string, run: () => Promise<unknown>): void => {
  t.test(`bus: ${name}`, async () => {
    const done = watch(name);
    await run();
    await bench.probe(bench.drivers);
    assert.deepEqual(wrong, []);
    assert.equal(rig.ended, undefined);
    done();
  });
};

attack('every answer that JavaScript can give, to every width', async () => {
  for (const width of WIDTHS) {
    const values = await rig.run(answers.map((_, i) => read(width, BASE + 8 * i)));
    const ones = (1n << BigInt(8 * width)) - 1n;
    assert.equal(values[0]?.value, 0x1234_5678n & ones);
    assert.equal(values[1]?.value, ones, 'a handler that throws reads as nothing there');
    assert.equal(values[5]?.value, ones);
    assert.equal(values[6]?.value, ones);
  }
  assert.ok(rig.events.some(({ type, message }) => type === 'error' && message === 'a read that throws'));
});

attack('accesses that begin before it and end behind it', async () => {
  const around = [-8, -4, -2, -1, LENGTH - 7, LENGTH - 3, LENGTH - 1, LENGTH].flatMap((offset) =>
    WIDTHS.flatMap((width) => [read(width, BASE + offset), write(width, BASE + offset, -1n)]),
  );
  await rig.run(around);
});

attack('a write that throws, again and again', async () => {
  await rig.run(repeat(200, [write(4, BASE + 8, 1)]));
});

attack('ten thousand writes, faster than JavaScript takes them: the guest waits', async () => {
  const before = writes;
  const turning = setInterval(() => turns++, 0);
  await rig.run(
    repeat(
      2500,
      [0, 4, 16, 24].map((offset) => write(4, BASE + offset, 1)),
    ),
  );
  clearInterval(turning);
  await rig.run([read(4, BASE)]); // behind all of them
  assert.equal(writes - before, 10_000);
  assert.ok(turns > 0, 'the event loop has had its turns');
});

attack('two processors read and write it at once', async () => {
  rig.memory.writeU32(FLAG, 0);
  const access: Operation[] = [write(4, BASE, 1), read(4, BASE), write(8, BASE + 16, 1), read(8, BASE + 8)];
  const before = reads;
  const running = rig.run(until(FLAG, access), 1);
  await rig.run([...repeat(300, access), write(4, FLAG, 1)]);
  await running;
  assert.ok(reads - before >= 600);
});

attack('addresses where nothing is', async () => {
  const nowhere = [0xc0ff_f000, 0xd000_0000, 0xffff_fff8, 0x8000_0000, 0x4200_000].flatMap((address) =>
    WIDTHS.flatMap((width) => [read(width, address), write(width, address, -1n)]),
  );
  await rig.run(nowhere);
});

attack('the power device: accesses that ask for nothing', async () => {
  const odd = [
    ...[0, 1, 2, 3, 7].flatMap((offset) => WIDTHS.map((width) => read(width, POWER_ADDRESS + offset))),
    // Sleep control without SLP_EN, of every sleep type; a reset by a wrong value; wide writes beside it.
    ...[0, 4, 8, 0x1c].map((value) => write(1, POWER_ADDRESS, value)),
    ...[0, 0xff].map((value) => write(1, POWER_ADDRESS + 3, value)),
    ...WIDTHS.map((width) => read(width, PVPANIC_ADDRESS)),
    write(1, PVPANIC_ADDRESS, 0),
    write(1, PVPANIC_ADDRESS + 1, 0xff),
  ];
  await rig.run(odd);
});
bench.end();
