import { openSync } from 'node:fs';
import type { Machine } from '../machine/machine.js';
import type { Timeline } from '../machine/timeline.js';
import type { SettingFlags } from './config/settings.js';
import { Container } from './container.js';
import { logError, logWarning } from './log.js';
import { inheritedFds } from './preserved-fds.js';
import { onSignals } from './signals.js';

export { RunError } from './container.js';

export interface RunOptions {
  /** The folder of all containers' states. */
  readonly root: string;
  /** The bundle's folder. */
  readonly bundle: string;
  readonly config?: string | undefined;
  /** Undefined: one that no other container has. */
  readonly id?: string | undefined;
  readonly flags: SettingFlags;
  /** How many of the descriptors from 3 on the process gets. */
  readonly preserveFds: number;
  readonly pidFile?: string | undefined;
  /** The container's state stays, for `delete`. */
  readonly keep: boolean;
  readonly timeline?: Timeline | undefined;
}

/** The terminal that a process with `process.terminal` is shown on: this process's, or nothing. */
export interface RunTerminal {
  /** Undefined where standard input is no terminal. */
  size(): { readonly rows: number; readonly columns: number } | undefined;
  /** Hands every key to the guest. */
  raw(): void;
  /** Idempotent. */
  restore(): void;
  onResize(listener: () => void): void;
}

/**
 * Runs a bundle's process in a machine of its own, on this process's standard streams. Resolves with its exit status,
 * or 128 + n where signal n came before it ran; `onEnd` sees the machine once more before that. Throws a UserError (RunError where the machine has failed).
 */
export async function runContainer(
  options: RunOptions,
  terminal: RunTerminal,
  onEnd?: (machine: Machine) => void,
): Promise<number> {
  let hasTerminal = false;
  const container = await Container.open({
    root: options.root,
    id: options.id ?? `run-${process.pid}-${Date.now().toString(36)}`,
    bundle: options.bundle,
    config: options.config,
    command: 'run',
    transient: !options.keep,
    flags: options.flags,
    preserved: inheritedFds(options.preserveFds).map((fd) => (fd < 0 ? openSync('/dev/null', 'r+') : fd)),
    timeline: options.timeline,
    streams: (wanted) => {
      hasTerminal = wanted && terminal.size() !== undefined;
      return wanted
        ? { kind: 'terminal', read: 0, write: 1 }
        : { kind: 'streams', stdin: 0, stdout: 1, stderr: 2 };
    },
    terminalSize: () => terminal.size(),
    log: (level, message) => (level === 'error' ? logError(message) : logWarning(message)),
  });
  const { sandbox, machine } = container;
  const removeSignals = onSignals((signal) => sandbox.signal(signal));
  try {
    const booted = sandbox.boot();
    // The guest boots meanwhile.
    container.listen();
    container.sweep();
    await booted;
    if (hasTerminal) {
      terminal.raw();
      terminal.onResize(() => {
        const size = terminal.size();
        if (size !== undefined) sandbox.resize(size.rows, size.columns);
      });
    }
    await sandbox.run();
    container.limit();
    container.started(options.pidFile);
    await container.runHooks('poststart', 'running');
    const status = await sandbox.ended;
    onEnd?.(machine);
    terminal.restore();
    machine.stop();
    if (options.keep) return status;
    await container.runPoststopHooks();
    container.close();
    return status;
  } catch (error) {
    terminal.restore();
    machine.stop();
    throw await container.fail(error);
  } finally {
    removeSignals();
  }
}
