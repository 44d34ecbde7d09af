import { resolve } from 'node:path';
import type { CreateRequest } from '../runtime/create.js';
import { type Parsed, parseInteger } from './arguments.js';
import { MACHINE_OPTIONS, machineFlags } from './machine-options.js';

/** The options of `create`, which `run` has too. */
export const CREATE_OPTIONS = {
  bundle: 'value',
  config: 'value',
  'pid-file': 'value',
  'console-socket': 'value',
  'preserve-fds': 'value',
  'no-pivot': 'flag',
  'no-new-keyring': 'flag',
  'no-subreaper': 'flag',
  ...MACHINE_OPTIONS,
} as const;

type Options = Parsed<typeof CREATE_OPTIONS>['options'];

/** What the options ask of a sandbox. @throws UsageError */
export function createRequest(root: string, id: string, bundle: string, options: Options): CreateRequest {
  const { config, 'console-socket': consoleSocket } = options;
  return {
    root,
    id,
    bundle: resolve(bundle),
    config,
    flags: machineFlags(options),
    consoleSocket: consoleSocket === undefined ? undefined : resolve(consoleSocket),
    preserveFds: preserveFdsOf(options),
  };
}

/** @throws UsageError */
export function preserveFdsOf({ 'preserve-fds': text }: Options): number {
  return text === undefined ? 0 : parseInteger(text, '--preserve-fds', 0, 1000);
}
