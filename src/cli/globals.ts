import { resolve } from 'node:path';
import { stateRoot } from '../runtime/container-lock.js';
import { configureLog } from '../runtime/log.js';
import { UsageError } from './arguments.js';
import { type GlobalFlags, globalFlagNames } from './global-flags.js';

/** What the flags before the command say. */
export interface Globals {
  /** Absolute: where the state of containers lies. */
  readonly root: string;
  readonly debug: boolean;
  /** The flags for another process of tsvmm on the same containers, with the same log. */
  readonly written: readonly string[];
}

/** Checks the global flags and opens the log. @throws UsageError */
export async function readGlobals({ values, unknown, incomplete }: GlobalFlags): Promise<Globals> {
  // The log first, so that it has what is wrong with the others.
  const log = values.get('log');
  const format = values.get('log-format') ?? 'text';
  const debug = flag('debug', values.get('debug'));
  configureLog({
    // runc's default, and no file.
    file: log === '' || log === '/dev/stderr' ? undefined : log,
    format: format === 'json' ? 'json' : 'text',
    debug,
  });
  if (unknown !== undefined) {
    const { suggestion } = await import('../runtime/values.js');
    throw new UsageError(
      `unknown option ${unknown}${suggestion(unknown, globalFlagNames())}; see tsvmm --help`,
    );
  }
  if (incomplete !== undefined) throw new UsageError(`${incomplete}: its value is missing`);
  if (format !== 'text' && format !== 'json') {
    throw new UsageError(`--log-format: expected text or json, got ${JSON.stringify(format)}`);
  }
  flag('systemd-cgroup', values.get('systemd-cgroup'));
  const rootless = values.get('rootless') ?? 'auto';
  if (rootless !== 'auto') flag('rootless', rootless);
  const given = values.get('root') ?? '';
  const root = given === '' ? stateRoot() : resolve(given);
  const written = ['--root', root, '--log-format', format, ...(debug ? ['--debug'] : [])];
  if (log !== undefined && log !== '' && log !== '/dev/stderr') written.push('--log', resolve(log));
  return { root, debug, written };
}

function flag(name: string, value: string | undefined): boolean {
  if (value === undefined || value === 'false' || value === '0') return false;
  if (value === 'true' || value === '1') return true;
  throw new UsageError(`--${name}: expected true or false, got ${JSON.stringify(value)}`);
}
