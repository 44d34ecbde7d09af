import { closeSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import { Container, RunError } from '../container.js';
import { type CreateRequest, STATUS_FD, STREAM_FDS } from '../create.js';
import { messageOf, UserError } from '../errors.js';
import { onSignals } from '../signals.js';
import { type ConsoleTerminal, consoleTerminal } from './console-terminal.js';
import type { CreationReport } from './creation-report.js';
import type { SandboxStreams } from './sandbox.js';
import { enterContainerView } from './view.js';

/**
 * The process that holds a container's machine: a child of `create`, which hands over the container's standard streams. Resolves with
 * the status of the container's process. `leaving` is called before the thread leaves the host's file system for the container's view:
 * whatever has a path comes before.
 */
export async function sandboxMain(
  request: CreateRequest,
  report: CreationReport,
  leaving: () => void,
): Promise<number> {
  let container: Container | undefined;
  let terminal: ConsoleTerminal | undefined;
  try {
    container = await Container.open({
      root: request.root,
      id: request.id,
      bundle: request.bundle,
      config: request.config,
      command: 'create',
      transient: false,
      flags: request.flags,
      preserved: preservedFds(request.preserveFds),
      streams: (wanted): SandboxStreams => {
        terminal = consoleTerminal(wanted, request.consoleSocket);
        const [stdin, stdout, stderr] = STREAM_FDS;
        if (terminal === undefined) return { kind: 'streams', stdin, stdout, stderr, handOver: true };
        for (const fd of STREAM_FDS) closeSync(fd);
        return { kind: 'terminal', read: terminal.fd, write: terminal.fd };
      },
      log: (level, message) => {
        if (report.open && level === 'warning') report.warn(message);
        else container?.logLine(`${level}: ${message}`);
      },
    });
    const { sandbox } = container;
    onSignals((signal) => sandbox.signal(signal));
    terminal?.onResize((rows, columns) => sandbox.resize(rows, columns));
    const booted = sandbox.boot();
    container.listen();
    await booted;
    await sandbox.create();
    container.limit();
    report.prepared();
    container.setStatus('created');
    // Who asked for the container may be gone: then nobody will ever start it.
    if (!report.created()) throw new UserError('the command that made the container has gone');
    // Last, since what has to be undone is out of reach from there.
    leaving();
    enterContainerView(container);
  } catch (error) {
    container?.machine.stop();
    const told = (await container?.fail(error)) ?? error;
    report.fail(messageOf(told), told instanceof RunError ? told.consoleLines : []);
    return 1;
  }
  return live(container);
}

/** From created to the end; what is left is for `delete` to remove. */
async function live(container: Container): Promise<number> {
  const { sandbox, machine } = container;
  try {
    const exitStatus = await sandbox.ended;
    machine.stop();
    return exitStatus;
  } catch (error) {
    await container.keepFailure(messageOf(error));
    machine.stop();
    return MACHINE_FAILED;
  } finally {
    // The others of a pod need not hold anything back for this one any more.
    container.leaveNetwork();
  }
}

/** As of a command that could not be run to its end. */
const MACHINE_FAILED = 125;

function preservedFds(count: number): number[] {
  const first = STREAM_FDS[2] + 1;
  // What the sandbox starts (hooks, passt) is to hold none of them.
  addon().closeOnExec(STATUS_FD);
  return Array.from({ length: count }, (_, index) => first + index);
}
