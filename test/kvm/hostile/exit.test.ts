/** The process ends in the middle of an attack on all devices: at once, with its own status, and without a word. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { watch } from '../../support/hostile-guest/cases.js';
import { repeat, until } from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { storm } from '../../support/hostile-guest/storm.js';

const FLAG = 0x3d0_0000;
const ways = {
  'process.exit()': () => process.exit(7),
  'an exception that nobody catches': () => {
    process.on('exit', () => {
      process.exitCode = 7;
    });
    setImmediate(() => {
      throw new Error('on purpose');
    });
  },
  'the end of the event loop’s work, after close()': (close: () => void) => {
    close();
    process.exitCode = 7;
  },
} as const;
type Way = keyof typeof ways;

/** In the child: both processors attack, then the process ends that way. */
async function attackAndEnd(way: Way): Promise<void> {
  const bench = await fullBench({ cpus: 2 });
  bench.rig.memory.writeU32(FLAG, 0);
  const half = bench.drivers.length / 2;
  const storms = bench.drivers.map(storm);
  bench.rig.run(until(FLAG, storms.slice(half).flat()), 1).catch(() => {});
  await bench.rig.run(repeat(3, storms.slice(0, half).flat()));
  bench.rig.run(until(FLAG, storms.slice(0, half).flat())).catch(() => {});
  ways[way](() => bench.close());
}

const [, self, asked] = process.argv;
if (asked !== undefined) {
  await attackAndEnd(asked as Way);
} else {
  for (const way of Object.keys(ways)) {
    t.test(`the process ends by ${way}`, async (t) => {
      const done = watch(way);
      const child = spawn(process.execPath, [self ?? fileURLToPath(import.meta.url), way], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let words = '';
      child.stderr.setEncoding('utf8').on('data', (text) => {
        words += text;
      });
      const [status, signal] = await new Promise<[number | null, string | null]>((resolve) =>
        child.on('close', (code, by) => resolve([code, by])),
      );
      done();
      t.equal(signal, null, words);
      t.equal(status, 7, words);
      if (way !== 'an exception that nobody catches') t.equal(words, '');
    });
  }
}
