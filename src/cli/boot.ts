import type { MachineConfig, NetworkConfig, ShareConfig } from '../machine/config.js';
import { Machine, type MachineExit } from '../machine/machine.js';
import { Timeline } from '../machine/timeline.js';
import { printError } from '../runtime/output.js';
import { onSignals } from '../runtime/signals.js';
import { ESCAPE_KEY, Terminal } from '../runtime/terminal.js';
import {
  type Parsed,
  parseArguments,
  parseInteger,
  parseMemory,
  parseSeconds,
  parseSize,
  UsageError,
} from './arguments.js';
import { parseDisk } from './disk-option.js';
import { writeTimeline } from './write-timeline.js';

export const usage = `usage: tsvmm boot [OPTIONS] KERNEL

Boots KERNEL (a bzImage or a vmlinux for x86-64). Its serial console is on standard input and output; on a terminal
the keys go to the guest, and Ctrl-] ends the machine.

  --initrd FILE             an initramfs
  --append PARAMETERS       kernel parameters, added to tsvmm's own
  --memory SIZE             128M by default; 1G, 512MiB, or a number of bytes
  --cpus N                  1 by default
  --disk FILE[,OPTION...]   a raw image or block device as /dev/vda, /dev/vdb, ...; may be repeated. Options: ro;
                            direct (past the page cache); queues=N; engine=uring|threads; and the most that is
                            done a second: iops=N requests, rate=SIZE bytes
  --share TAG=DIR[,ro]      a folder, for: mount -t virtiofs TAG /mnt; may be repeated
  --net tap=NAME[,mac=ADDRESS][,mtu=N][,queues=N][,up] | passt [ARGUMENT...] | none
                            a network card on a TAP device, or on a user-mode network by passt; may be repeated
  --vsock PATH              a socket device: the guest's connection to host port P reaches the Unix socket PATH_P;
                            who connects to PATH and sends "CONNECT P" and a newline reaches the guest's port P
  --rng                     a virtio entropy source
  --balloon[=SIZE]          a memory balloon: what the guest frees goes back to the host; SIZE of its memory at once
  --decompress host|guest   who unpacks a bzImage's kernel; host (and cached) by default
  --timeline FILE           writes the phases of the start as JSON
  --deadline SECONDS        ends a machine that takes longer

Status: 0 the guest powered off or reset; 101 it panicked; 102 triple fault; 103 KVM reported an error;
104 the deadline passed; 125 tsvmm failed; 128 + n signal n came.`;

const STATUS: Readonly<Record<MachineExit['reason'], number>> = {
  'power-off': 0,
  reset: 0,
  stopped: 0,
  panic: 101,
  'triple-fault': 102,
  'kvm-error': 103,
};
const STATUS_DEADLINE = 104;

const OPTIONS = {
  initrd: 'value',
  append: 'value',
  memory: 'value',
  cpus: 'value',
  disk: 'list',
  share: 'list',
  net: 'list',
  vsock: 'value',
  rng: 'flag',
  balloon: 'optional',
  decompress: 'value',
  timeline: 'value',
  deadline: 'value',
} as const;

export async function main(args: readonly string[]): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS);
  const [kernel, surplus] = positionals;
  if (kernel === undefined) throw new UsageError('boot: the kernel is missing; see tsvmm boot --help');
  if (surplus !== undefined) throw new UsageError(`boot: ${surplus}: there is one kernel only, ${kernel}`);
  const deadline = options.deadline === undefined ? undefined : parseSeconds(options.deadline, '--deadline');
  const timeline = options.timeline === undefined ? undefined : new Timeline();
  const machine = await Machine.create({ ...machineConfig(kernel, options), timeline });
  const terminal = new Terminal();
  const restore = (): void => terminal.restore();
  process.once('exit', restore);
  // Whatever ends the machine first decides the status.
  const ended = new Promise<number>((resolve) => {
    onSignals((signal) => resolve(terminal.isRaw && signal === SIGQUIT ? 0 : 128 + signal));
    if (deadline !== undefined) setTimeout(resolve, deadline * 1000, STATUS_DEADLINE).unref();
    machine.wait().then((exit) => {
      restore();
      if ('message' in exit) printError(`tsvmm: ${WORDS[exit.reason]}: ${exit.message.replace(PANIC, '')}`);
      resolve(STATUS[exit.reason]);
    });
  });
  terminal.raw(ESCAPE_KEY);
  machine.start();
  const status = await ended;
  restore();
  if (status === STATUS_DEADLINE) printError(`tsvmm: the machine did not end within ${deadline} seconds`);
  machine.stop();
  if (timeline !== undefined) writeTimeline(machine, timeline, String(options.timeline));
  return status;
}

const SIGQUIT = 3;

/** What the kernel puts before the reason of a panic. */
const PANIC = /^Kernel panic - not syncing: /;

const WORDS = {
  panic: 'the guest panicked',
  'triple-fault': 'the guest failed',
  'kvm-error': 'KVM cannot run the guest',
} as const;

function machineConfig(kernel: string, options: Parsed<typeof OPTIONS>['options']): MachineConfig {
  const { decompress, initrd, append } = options;
  if (decompress !== undefined && decompress !== 'host' && decompress !== 'guest') {
    throw new UsageError(`--decompress: expected host or guest, got ${JSON.stringify(decompress)}`);
  }
  const memory = options.memory === undefined ? 128 << 20 : parseMemory(options.memory);
  return {
    memory,
    cpus: options.cpus === undefined ? 1 : parseInteger(options.cpus, '--cpus', 1, 254),
    kernel: {
      path: kernel,
      ...(decompress === undefined ? {} : { decompress }),
      ...(initrd === undefined ? {} : { initrd }),
      ...(append === undefined ? {} : { commandLine: append }),
    },
    serial: { input: 0, output: 1 },
    disks: (options.disk ?? []).map(parseDisk),
    shares: (options.share ?? []).map(parseShare),
    networks: (options.net ?? []).flatMap(parseNetwork),
    vsock: options.vsock === undefined ? undefined : { path: options.vsock },
    rng: options.rng === true,
    ...(options.balloon === undefined ? {} : { balloon: parseBalloon(options.balloon, memory) }),
    log: (line) => printError(`tsvmm: ${line}`),
  };
}

function parseBalloon(text: string, memory: number): { target: number } {
  const target = text === '' ? 0 : parseSize(text, '--balloon');
  if (target % 4096 !== 0) throw new UsageError(`--balloon: ${target} bytes are no multiple of 4096`);
  if (target > memory) {
    throw new UsageError(`--balloon: ${target} bytes are more than the guest's memory, ${memory} bytes`);
  }
  return { target };
}

function parseShare(text: string): ShareConfig {
  const readOnly = text.endsWith(',ro');
  const match = /^([^=]+)=(.+)$/s.exec(readOnly ? text.slice(0, -3) : text);
  const [, tag, directory] = match ?? [];
  if (tag === undefined || directory === undefined) {
    throw new UsageError(`--share: expected TAG=DIR or TAG=DIR,ro, got ${JSON.stringify(text)}`);
  }
  return { tag, directory, readOnly };
}

const NETWORK = 'expected tap=NAME[,mac=ADDRESS][,mtu=N][,queues=N][,up], passt [ARGUMENT...], or none';

function parseNetwork(text: string): NetworkConfig[] {
  if (text === 'none') return [];
  const [passt, ...more] = text.trim().split(/\s+/);
  if (passt === 'passt') return [{ passt: { arguments: more } }];
  const [first = '', ...settings] = text.split(',');
  const tap = /^tap=(.+)$/.exec(first)?.[1];
  if (tap === undefined) throw new UsageError(`--net: ${NETWORK}, got ${JSON.stringify(text)}`);
  const network: { mac?: string; mtu?: number; queues?: number; up?: boolean } = {};
  for (const setting of settings) {
    const [, key, value = ''] = /^(mac|mtu|queues)=(.+)$/.exec(setting) ?? [];
    if (setting === 'up') network.up = true;
    else if (key === 'mac') network.mac = value;
    else if (key === 'mtu') network.mtu = parseInteger(value, '--net: mtu', 68, 65_535);
    else if (key === 'queues') network.queues = parseInteger(value, '--net: queues', 1, 8);
    else throw new UsageError(`--net: ${NETWORK}, got ${JSON.stringify(setting)}`);
  }
  return [{ tap, ...network }];
}
