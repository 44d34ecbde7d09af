/**
 * What each case of the hostile guest suite comes down to. A case attacks one device of a {@link Bench}; afterwards, whatever
 * happened, every other device must answer an honest request, the device must come back by a reset, and then answer one too.
 */
import { Worker } from 'node:worker_threads';
import t from 'tap';
import type { GuestMemory } from '../../../src/memory/guest-memory.js';
import type { VirtioDescription } from '../../../src/virtio/description.js';
import { Driver, NEEDS_RESET, type StartOptions } from './driver.js';
import { probeOf } from './probes.js';
import { Rig, type RigOptions } from './rig.js';

/**
 * - `served`: the device works on without a reset;
 * - a pattern: the device is marked DEVICE_NEEDS_RESET, has told the driver by an interrupt, and the log says why;
 * - `either`, where the text leaves open what the driver's mistake leads to.
 */
export type Verdict = 'served' | 'either' | RegExp;

export const served = 'served';

export interface Case {
  readonly name: string;
  readonly verdict: Verdict;
  /** How the device is started before; null: not at all (it has been reset). */
  readonly start?: StartOptions | null;
  /** The attack, with the checks that are its own. */
  readonly attack: (driver: Driver) => Promise<unknown>;
}

/** A machine with all its devices started. */
export class Bench {
  readonly rig: Rig;
  readonly drivers: readonly Driver[];

  constructor(
    describe: (memory: () => GuestMemory) => readonly VirtioDescription[],
    options: Omit<RigOptions, 'describe'> = {},
  ) {
    this.rig = new Rig({ describe, ...options });
    this.drivers = this.rig.devices.map((device) => new Driver(this.rig, device));
  }

  async start(): Promise<void> {
    for (const driver of this.drivers) await driver.start();
  }

  driver(name: string): Driver {
    const driver = this.drivers.find((each) => each.device.name === name);
    if (driver === undefined) throw new Error(`the bench has no device ${name}`);
    return driver;
  }

  /** An honest request to each of the drivers' devices, all in one program. */
  async probe(drivers: readonly Driver[]): Promise<void> {
    const probes = drivers.map((driver) => ({ driver, ...probeOf(driver) }));
    await this.rig.run(probes.flatMap(({ operations }) => operations));
    for (const { driver, check } of probes) {
      const name = driver.device.name;
      try {
        check();
      } catch (error) {
        throw new Error(`${name} does not work: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
}

/** An honest request in the middle of an attack: the device must serve it. */
export async function serves(driver: Driver): Promise<void> {
  const { operations, check } = probeOf(driver);
  await driver.run(...operations);
  check();
}

/** Runs the cases against one device of the bench, each a test of its own. */
export function attack(bench: Bench, device: string, cases: readonly Case[]): void {
  for (const each of cases) {
    t.test(`${device}: ${each.name}`, async (t) => {
      const done = watch(`${device}: ${each.name}`);
      try {
        await runCase(bench, bench.driver(device), each);
        t.pass('the machine lives, all devices work');
      } catch (error) {
        // The next case is not to fail for this one.
        await bench
          .driver(device)
          .start()
          .catch(() => {});
        throw error;
      } finally {
        done();
      }
    });
  }
}

async function runCase(bench: Bench, driver: Driver, each: Case): Promise<void> {
  const { rig } = bench;
  if (each.start === null) await rig.run(driver.reset());
  else await driver.start(each.start);
  const before = { events: rig.events.length, interrupts: rig.interruptsRaised(driver.device) };
  await each.attack(driver);
  if (each.verdict instanceof RegExp) await rig.run([driver.broken()]);
  // What the attack has set going is over when another device, served by the same thread, has answered.
  const others = bench.drivers.filter((other) => other !== driver);
  await bench.probe(others);
  await judge(driver, each.verdict, before);
  if ((await driver.start()) !== 0xf) throw new Error('the device does not come back by a reset');
  await bench.probe([driver]);
}

async function judge(
  driver: Driver,
  verdict: Verdict,
  before: { readonly events: number; readonly interrupts: number },
): Promise<void> {
  const { rig, device } = driver;
  const failures = rig.events
    .slice(before.events)
    .filter((event) => event.device === device.name && event.type === 'failed')
    .map(({ message }) => message);
  const status = await driver.status();
  const broken = (status & NEEDS_RESET) !== 0;
  if (verdict === 'served') {
    if (broken || failures.length > 0) throw new Error(`the device has failed: ${failures.join('; ')}`);
    return;
  }
  if (verdict === 'either') return;
  const [failure] = failures;
  if (!broken || failure === undefined) throw new Error(`the device has not failed: status ${status}`);
  if (failures.length > 1) throw new Error(`it has failed more than once: ${failures.join('; ')}`);
  if (!verdict.test(failure)) throw new Error(`it has failed for another reason: ${failure}`);
  if (rig.interruptsRaised(device) === before.interrupts) throw new Error('the driver was not told');
}

/** Longer than any wait of a guest; a case that takes it has stopped this thread. */
const LIMIT_MS = 150_000;
const NAME_SIZE = 400;

/**
 * Ends this process, with the case's name, when the case does not end: even where JavaScript's thread is stuck.
 * Returns what to call when it has ended.
 */
export function watch(name: string): () => void {
  watchdog ??= startWatchdog();
  const { state, text } = watchdog;
  text.fill(0);
  new TextEncoder().encodeInto(name, text);
  Atomics.add(state, 0, 1);
  Atomics.notify(state, 0);
  return () => {
    Atomics.add(state, 0, 1);
    Atomics.notify(state, 0);
  };
}

let watchdog: { readonly state: Int32Array; readonly text: Uint8Array } | undefined;

function startWatchdog(): { readonly state: Int32Array; readonly text: Uint8Array } {
  const shared = new SharedArrayBuffer(4 + NAME_SIZE);
  const worker = new Worker(
    `const { workerData: { shared, limit } } = require('node:worker_threads');
     const state = new Int32Array(shared, 0, 1);
     for (;;) {
       const seen = Atomics.load(state, 0); // odd: a case runs
       if (Atomics.wait(state, 0, seen, seen % 2 === 0 ? Infinity : limit) === 'timed-out') {
         const name = Buffer.from(new Uint8Array(shared, 4)).toString().replace(/\\0+$/, '');
         require('node:fs').writeSync(2, '# this case does not end: ' + name + '\\n');
         process.kill(process.pid, 'SIGKILL');
       }
     }`,
    { eval: true, workerData: { shared, limit: LIMIT_MS } },
  );
  worker.unref();
  return { state: new Int32Array(shared, 0, 1), text: new Uint8Array(shared, 4) };
}
