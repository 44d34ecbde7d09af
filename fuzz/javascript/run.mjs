// Runs a target of targets.ts under libFuzzer: node fuzz/javascript/run.mjs TARGET [LIBFUZZER-ARGUMENT...]
import { createRequire, register } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MessageChannel } from 'node:worker_threads';

const root = fileURLToPath(new URL('../..', import.meta.url));
const [name, ...args] = process.argv.slice(2);
const COUNTERS = 1 << 14;
globalThis.__fuzzCounters = new Uint8Array(COUNTERS);
let used = 0;
const { port1, port2 } = new MessageChannel();
port1.on('message', (count) => {
  used = count;
});
port1.unref();
register('./hooks.mjs', { parentURL: import.meta.url, data: { port: port2 }, transferList: [port2] });
const { targets } = await import(pathToFileURL(join(root, 'out/js/fuzz/javascript/targets.js')).href);
await new Promise((resolve) => setImmediate(resolve));
if (used === 0 || used > COUNTERS) throw new Error(`${used} counters; expected from 1 to ${COUNTERS}`);
const target = targets[name];
if (target === undefined) throw new Error(`no target ${name}: there are ${Object.keys(targets).join(' ')}`);
const { fuzz } = createRequire(import.meta.url)(join(root, 'out/fuzz/fuzz.node'));
process.exitCode = fuzz(args, target, globalThis.__fuzzCounters.subarray(0, used));
