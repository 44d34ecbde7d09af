import { KEYS, type ValueOf } from '../runtime/config/keys.js';
import type { SettingFlags } from '../runtime/config/settings.js';
import { parseInteger, parseMemory, parseSeconds, UsageError } from './arguments.js';

/** The options of `run` and `create` that say what machine it is to be. */
export const MACHINE_OPTIONS = {
  kernel: 'value',
  initrd: 'value',
  memory: 'value',
  cpus: 'value',
  network: 'value',
  'boot-timeout': 'value',
} as const;

const NETWORKS = KEYS.network.choices;

export function machineFlags(
  options: {
    readonly [K in keyof typeof MACHINE_OPTIONS]?: string | undefined;
  },
): SettingFlags {
  const { kernel, initrd, memory, cpus, network, 'boot-timeout': timeout } = options;
  return {
    kernel,
    initrd,
    memory: memory === undefined ? undefined : parseMemory(memory),
    cpus: cpus === undefined ? undefined : parseInteger(cpus, '--cpus', 1, 254),
    network: network === undefined ? undefined : networkOf(network),
    bootTimeout: timeout === undefined ? undefined : parseSeconds(timeout, '--boot-timeout'),
  };
}

function networkOf(text: string): ValueOf<'network'> {
  const network = NETWORKS.find((choice) => choice === text);
  if (network !== undefined) return network;
  throw new UsageError(`--network: expected auto, passt or none, got ${JSON.stringify(text)}`);
}
