import { closeSync } from 'node:fs';
import { STATUS_FD, type StatusLine } from '../create.js';
import { logError, logWarning } from '../log.js';
import { printError, writeAll } from '../output.js';
import { writePidFile } from '../pid-file.js';
import { ownPid } from '../user-namespace.js';

/** How a sandbox tells the command that waits for its container how the creation goes. */
export interface CreationReport {
  readonly open: boolean;
  warn(message: string): void;
  fail(message: string, consoleLines: readonly string[]): void;
  /** The container is as good as created: what has to be done while the host's files are still in view. @throws UserError */
  prepared(): void;
  /** Ends the report. False where nobody waits any more. */
  created(): boolean;
}

/** For `create` in TypeScript: lines of JSON. It writes the pid file, and the log. */
export function statusPipe(): CreationReport {
  let open = true;
  const send = (line: StatusLine): boolean => open && writeAll(STATUS_FD, `${JSON.stringify(line)}\n`);
  return {
    get open() {
      return open;
    },
    warn: (warning) => void send({ warning }),
    fail: (error, console) => void send({ error, console }),
    prepared: () => {},
    created() {
      const heard = send({ created: true });
      open = false;
      closeSync(STATUS_FD);
      return heard;
    },
  };
}

/** For native/launch: our standard error is shown as it is, and a NUL ends it. The pid file and the log are ours to write. */
export function messagePipe(pidFile: string | undefined): CreationReport {
  let open = true;
  return {
    get open() {
      return open;
    },
    warn: (message) => logWarning(message),
    fail(message, consoleLines) {
      logError(message);
      for (const line of consoleLines) printError(`  | ${line}`);
    },
    prepared() {
      if (pidFile !== undefined) writePidFile(pidFile, ownPid());
    },
    created() {
      const heard = writeAll(STATUS_FD, '\0');
      open = false;
      closeSync(STATUS_FD);
      return heard;
    },
  };
}
