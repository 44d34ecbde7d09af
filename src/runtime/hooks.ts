import { packageRoot } from '../addon/index.js';
import { messageOf, UserError } from './errors.js';
import type { Hook, HookName } from './spec/types.js';

/** How much of what a failing hook wrote is told. */
const MAX_SAID = 1000;

/**
 * Runs hooks one after the other, the state as JSON on the standard input of each (runtime specification, config.md, "POSIX-platform
 * Hooks"). They run in this thread's namespaces.
 * @param state what the specification's state is at this point
 * @param namespaces descriptors of at most two others for them, where this thread has the container's: who looks for the state's process
 * ID has to find it there
 * @throws UserError that names the hook which failed; those behind it have not run
 */
export async function runHooks(
  name: HookName,
  hooks: readonly Hook[] | undefined,
  state: object,
  directory: string,
  namespaces: readonly number[] = [],
): Promise<void> {
  if (hooks === undefined || hooks.length === 0) return;
  const { spawnSync } = await import('node:child_process');
  const input = JSON.stringify(state);
  for (const [index, { path, args = [path], env, timeout }] of hooks.entries()) {
    const where = `hooks.${name}[${index}]: ${path}`;
    const [argv0 = path, ...rest] = args;
    const launched = namespaces.length > 0;
    const program = launched ? `${packageRoot()}/dist/tsvmm` : path;
    const result = spawnSync(program, launched ? ['@hook', path, argv0, ...rest] : rest, {
      ...(launched ? { stdio: ['pipe', 'pipe', 'pipe', ...namespaces] } : { argv0 }),
      // As runc and crun do, and as hooks in the field rely on: without one of its own it has the runtime's.
      env: env === undefined ? process.env : environment(env),
      input,
      cwd: directory,
      ...(timeout === undefined ? {} : { timeout: timeout * 1000, killSignal: 'SIGKILL' }),
    });
    const { error, status, signal } = result;
    const said = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim().slice(-MAX_SAID);
    const details = said === '' ? '' : `: ${said}`;
    // A hook that reads nothing may end before it has been told all.
    const code = error !== undefined && 'code' in error ? error.code : undefined;
    if (code === 'ETIMEDOUT') throw new UserError(`${where} took longer than ${timeout} seconds${details}`);
    if (error !== undefined && code !== 'EPIPE')
      throw new UserError(`${where} cannot be run: ${error.message}`);
    if (signal !== null) throw new UserError(`${where} was ended by ${signal}${details}`);
    if (status !== 0) throw new UserError(`${where} ended with status ${status}${details}`);
  }
}

/** Runs the poststop hooks: one that fails is told, and the next runs ("MUST log a warning", runtime.md). */
export async function runPoststopHooks(
  hooks: readonly Hook[] | undefined,
  state: object,
  directory: string,
  warn: (message: string) => void,
): Promise<void> {
  for (const hook of hooks ?? []) {
    try {
      await runHooks('poststop', [hook], state, directory);
    } catch (error) {
      warn(messageOf(error));
    }
  }
}

function environment(variables: readonly string[]): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {};
  for (const variable of variables) {
    const equals = variable.indexOf('=');
    if (equals > 0) env[variable.slice(0, equals)] = variable.slice(equals + 1);
  }
  return env;
}
