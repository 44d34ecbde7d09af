// npm run bench: sets up, measures, and shows tables; JSON and charts go to out/bench.
//
//   npm run bench -- [boot|run|micro|io [DEVICE...]]... [-n N] [--instructions] [--only NAME] [--no-setup]
//
// boot: how long tsvmm and other monitors on the PATH take to boot one kernel and end, and their memory.
// run: `tsvmm run` of a small bundle. micro: queue, exit, address check. Default: all.
// io: the data path of the devices (blk net vsock fs, and memory: what each costs idle; default all), beside the same devices of other monitors.
// --only tsvmm: no others. -n N: samples of each start, after some to warm up; boots of each machine of io. Where there is no hardware KVM the testbed is used, once for the
// times (default 5 samples) and once counting instructions (default 3); --instructions leaves the times out.
// --no-setup takes what is built as it is. Others have to be quiet meanwhile: figures of a busy machine mean little.
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { inTestbed, kvmKind, root, runMain, SetupError, testbedReason } from './lib/host.mjs';
import { step } from './lib/steps.mjs';
import { setUp } from './setup.mjs';

const PARTS = ['boot', 'run', 'io', 'micro'];
const DEVICES = ['blk', 'net', 'vsock', 'fs', 'memory'];
const MONITORS = ['all', 'tsvmm', 'qemu', 'firecracker'];
const SAMPLES = 30;
const TESTBED_SAMPLES = 5;
const COUNTED_SAMPLES = 3;
const DEVICE_BOOTS = 2;
const TESTBED_SECONDS = 3000;
/** Taps, sockets, daemons and files of the devices' bench end with these. */
const IN_NAMESPACES = [
  ...['unshare', '--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', '--', 'sh', '-c'],
  ...['mount -t tmpfs tmpfs /dev/shm && ip link set lo up && exec "$@"', 'sh'],
];
const folder = join(root, 'out/bench');

/** Runs a program whose last line of output is its results. */
async function measure([program, ...args]) {
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  const status = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? signal));
  });
  if (status !== 0) throw new SetupError(`${args.join(' ')} ended with ${status}`);
  return JSON.parse(output.trimEnd().split('\n').at(-1));
}

function save(name, text) {
  const path = join(folder, name);
  writeFileSync(path, text);
  console.log(`  ${relative(process.cwd(), path)}`);
}

/** What the figures were measured on. */
function host(testbed) {
  return {
    date: new Date().toISOString(),
    version: readFileSync(join(root, 'package.json'), 'utf8').match(/"version": "(.*?)"/)[1],
    processor: cpus()[0]?.model ?? 'unknown',
    processors: cpus().length,
    linux: release(),
    node: process.version,
    testbed,
  };
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      samples: { type: 'string', short: 'n' },
      instructions: { type: 'boolean' },
      only: { type: 'string', default: 'all' },
      'no-setup': { type: 'boolean' },
    },
  });
  for (const part of positionals) {
    if (PARTS.includes(part) || (DEVICES.includes(part) && positionals.includes('io'))) continue;
    throw new SetupError(
      `no part '${part}': there are ${PARTS.join(' ')}, and after io ${DEVICES.join(' ')}`,
    );
  }
  if (values.samples !== undefined && !/^[1-9]\d{0,3}$/.test(values.samples)) {
    throw new SetupError(`-n: expected a number of samples, got '${values.samples}'`);
  }
  if (!MONITORS.includes(values.only)) {
    throw new SetupError(`--only: expected one of ${MONITORS.join(' ')}, got '${values.only}'`);
  }
  const parts = positionals.length > 0 ? positionals : PARTS;
  const starts = parts.filter((part) => part === 'boot' || part === 'run');
  const named = parts.filter((part) => DEVICES.includes(part));
  const devices = parts.includes('io') ? (named.length > 0 ? named : DEVICES) : [];
  const reason = values.instructions ? (testbedReason() ?? 'to count instructions') : testbedReason();
  const microInTestbed = kvmKind() === 'none' || kvmKind() === 'denied';
  const testbed = reason !== undefined && (starts.length > 0 || devices.length > 0 || microInTestbed);

  if (devices.length > 0 && process.getuid() !== 0) {
    throw new SetupError('io: wants root, for namespaces and a tap; remedy: sudo, or as root');
  }

  if (!values['no-setup']) await setUp(['addon', 'guest', ...(testbed ? ['testbed'] : [])]);
  await step('compile', 'TypeScript', [
    [process.execPath, 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json'],
  ]);
  const compiled = (name) => join(root, 'out/js/bench', name);
  const { makeInputs } = await import(compiled('inputs.js'));
  const report = await import(compiled('report.js'));
  mkdirSync(folder, { recursive: true });
  if (testbed && parts.some((part) => part !== 'micro')) {
    console.log(`bench: ${reason}: the machines run inside the testbed (emulated, ten times slower)`);
  }

  if (starts.length > 0) {
    makeInputs();
    for (const unit of sessions(testbed, values.instructions)) {
      const samples = values.samples ?? defaultSamples(testbed, unit);
      const program = ['node', 'out/js/bench/start.js', String(samples), unit, ...starts];
      const results = await measureThere(program, testbed, unit);
      console.log(`\n${report.startTables(results)}\n`);
      const name = unit === 'instructions' ? 'instructions' : 'times';
      save(`${name}.json`, `${JSON.stringify({ host: host(testbed), ...results }, undefined, 2)}\n`);
      save(`${name}.svg`, report.startChart(results));
      for (const phases of results.phases) {
        const command = phases.name.replace(/\W+/g, '-');
        save(`${name}-${command}.svg`, report.phasesChart(phases, unit));
      }
    }
  }
  let failed = false;
  if (devices.length > 0) {
    const { makeDeviceInputs } = await import(compiled('device-inputs.js'));
    const { deviceTables } = await import(compiled('device-report.js'));
    makeDeviceInputs();
    for (const unit of sessions(testbed, values.instructions)) {
      const results = await measureThere(
        [
          ...IN_NAMESPACES,
          ...['node', 'out/js/bench/devices.js', String(values.samples ?? DEVICE_BOOTS), unit],
          ...[values.only, ...devices],
        ],
        testbed,
        unit,
      );
      console.log(`\n${deviceTables(results)}\n`);
      failed ||= results.failures.length > 0;
      const name = unit === 'instructions' ? 'devices-instructions' : 'devices-times';
      save(`${name}.json`, `${JSON.stringify({ host: host(testbed), ...results }, undefined, 2)}\n`);
    }
  }
  if (parts.includes('micro')) {
    const results = [];
    for (const file of ['micro.js', 'bare.js']) {
      const program = ['node', `out/js/bench/${file}`];
      results.push(...(await measure(microInTestbed ? inTestbed(program) : program)));
    }
    console.log(`\n${report.microTable(results)}\n`);
    save('micro.json', `${JSON.stringify({ host: host(microInTestbed), results }, undefined, 2)}\n`);
    save('micro.svg', report.microChart(results));
  }
  return failed ? 1 : 0;
}

/** In the testbed, with one processor that counts or with two, or here. */
function measureThere(program, testbed, unit) {
  const options = ['-t', String(TESTBED_SECONDS), ...(unit === 'instructions' ? ['-i'] : ['-c', '2'])];
  return measure(testbed ? inTestbed(program, options) : program);
}

function sessions(testbed, instructions) {
  if (!testbed) return ['nanoseconds'];
  return instructions ? ['instructions'] : ['nanoseconds', 'instructions'];
}

function defaultSamples(testbed, unit) {
  if (!testbed) return SAMPLES;
  return unit === 'instructions' ? COUNTED_SAMPLES : TESTBED_SAMPLES;
}

await runMain('bench', main);
