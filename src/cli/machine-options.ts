import type { SettingFlags } from '../runtime/config/settings.js';
import { parseInteger, parseMemory, parseSeconds } from './arguments.js';

/** The options of `run` and `create` that say what machine it is to be. */
export const MACHINE_OPTIONS = {
  kernel: 'value',
  initrd: 'value',
  memory: 'value',
  cpus: 'value',
  'boot-timeout': 'value',
} as const;

export function machineFlags(
  options: {
    readonly [K in keyof typeof MACHINE_OPTIONS]?: string | undefined;
  },
): SettingFlags {
  const { kernel, initrd, memory, cpus, 'boot-timeout': timeout } = options;
  return {
    kernel,
    initrd,
    memory: memory === undefined ? undefined : parseMemory(memory),
    cpus: cpus === undefined ? undefined : parseInteger(cpus, '--cpus', 1, 254),
    bootTimeout: timeout === undefined ? undefined : parseSeconds(timeout, '--boot-timeout'),
  };
}
