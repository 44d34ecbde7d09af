import { closeSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import { UserError } from '../errors.js';
import { Terminal } from '../terminal.js';

/** The pseudo terminal of a container whose other end somebody else has. */
export interface ConsoleTerminal {
  /** Our end: the slave, in raw mode, since the guest's own terminal does what there is to do. */
  readonly fd: number;
  onResize(listener: (rows: number, columns: number) => void): void;
}

/**
 * Makes the container's terminal and sends its master to `socket`, as `--console-socket` asks.
 * @param wanted whether the process has a terminal
 * @returns undefined where it has none
 * @throws UserError where one is there without the other
 */
export function consoleTerminal(wanted: boolean, socket: string | undefined): ConsoleTerminal | undefined {
  if (!wanted) {
    if (socket === undefined) return undefined;
    throw new UserError('--console-socket: cannot use console socket if process.terminal is false');
  }
  if (socket === undefined) {
    throw new UserError(
      'cannot allocate tty if tsvmm will detach without setting console socket (use --console-socket)',
    );
  }
  const pty = addon().openPty(0, 0);
  if (typeof pty === 'number') throw new UserError(`no pseudo terminal to be had (errno ${-pty})`);
  const { master, slave } = pty;
  const sent = addon().sendFd(socket, master, '/dev/pts');
  closeSync(master);
  if (sent < 0) {
    closeSync(slave);
    throw new UserError(`--console-socket: ${socket}: the terminal cannot be sent there (errno ${-sent})`);
  }
  // Ours, so that its changes of size are told to this process.
  addon().controllingTerminal(slave);
  const terminal = new Terminal(slave);
  terminal.raw();
  return {
    fd: slave,
    onResize: (listener) => {
      process.on('SIGWINCH', () => {
        const size = terminal.size();
        if (size !== undefined) listener(size.rows, size.columns);
      });
    },
  };
}
