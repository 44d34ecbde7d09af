/**
 * Machines of one process, one after the other: `further.js KERNEL INITRD SAMPLES RESULT`. From create() to the end of
 * close(), without the first, which loads the addon and all the JavaScript.
 */
import { openSync, writeFileSync } from 'node:fs';
import { Machine, Timeline } from '../src/index.js';
import { appended, MEMORY_MIB } from './inputs.js';

const [kernel = '', initrd = '', samples = '1', result = ''] = process.argv.slice(2);
const nowhere = openSync('/dev/null', 'w');
const end: number[] = [];
let phases: { name: string; since: number }[] = [];

for (let count = 0; count <= Number(samples) + 1; count++) {
  const start = Number(process.hrtime.bigint());
  const timeline = new Timeline();
  const machine = await Machine.create({
    memory: MEMORY_MIB << 20,
    cpus: 1,
    kernel: { path: kernel, initrd, commandLine: appended('poweroff') },
    serial: { output: nowhere },
    timeline,
  });
  machine.start();
  const exit = await machine.wait();
  machine.collectTimeline();
  machine.close();
  const closed = Number(process.hrtime.bigint());
  if (exit.reason !== 'power-off') throw new Error(`the machine ended by ${exit.reason}`);
  // The first is not a further one, and in the second the engine still compiles.
  if (count < 2) continue;
  end.push(closed - start);
  if (closed - start > Math.min(...end)) continue;
  let before = start;
  phases = [...timeline.marks().filter(({ at }) => at > start), { name: 'close', at: closed }].map(
    ({ name, at }) => {
      const since = at - before;
      before = at;
      return { name, since };
    },
  );
}
writeFileSync(result, JSON.stringify({ end, phases }));
