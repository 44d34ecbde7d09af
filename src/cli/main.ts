import { printError, printLine } from '../runtime/output.js';

/** Every failure of tsvmm itself, usage included. */
const EXIT_FAILURE = 125;

/** What each command's file offers. They are loaded when they are used: the start of `run` and `boot` is counted. */
interface Command {
  readonly usage: string;
  /** Resolves with the exit status. */
  main(args: readonly string[]): Promise<number>;
}

function load(name: string): Promise<Command> | undefined {
  switch (name) {
    case 'run':
      return import('./run.js');
    case 'boot':
      return import('./boot.js');
    case 'doctor':
      return import('./doctor.js');
    case 'initramfs':
      return import('./initramfs.js');
    default:
      return undefined;
  }
}

const COMMANDS = ['run', 'boot', 'doctor', 'initramfs'];

const USAGE = `usage: tsvmm COMMAND [OPTIONS]

  run        run an OCI bundle's process in a microVM of its own
  boot       boot a Linux kernel, its console on the terminal
  doctor     tell whether this host can run microVMs, and what is missing
  initramfs  make an initramfs for a distribution's kernel

  --help     this text; after a command, that command's
  --version  the version

Every failure of tsvmm itself ends with status ${EXIT_FAILURE}. TSVMM_DEBUG=1 adds the stack to its message.`;

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  const command = name === undefined ? undefined : load(name);
  if (command !== undefined) {
    const { usage, main } = await command;
    if (rest[0] === '--help' || rest[0] === '-h') {
      printLine(usage);
      return 0;
    }
    return main(rest);
  }
  const { packageVersion } = await import('./version.js');
  switch (name) {
    case '--version':
    case '-v':
      printLine(`tsvmm ${packageVersion()}`);
      return 0;
    case '--help':
    case '-h':
    case 'help':
      printLine(USAGE);
      return 0;
    case undefined:
      printError(USAGE);
      return EXIT_FAILURE;
    default: {
      const { suggestion } = await import('./arguments.js');
      const known = name.startsWith('-') ? ['--help', '--version'] : COMMANDS;
      const what = name.startsWith('-') ? 'option' : 'command';
      printError(`tsvmm: unknown ${what} ${name}${suggestion(name, known)}; see tsvmm --help`);
      return EXIT_FAILURE;
    }
  }
}

/** One line for people, and what belongs to it; with TSVMM_DEBUG=1 the stack too. */
function report(error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  printError(`tsvmm: ${message.replaceAll('\n', ' ')}`);
  if (error instanceof Error) {
    const lines: unknown = Reflect.get(error, 'consoleLines');
    if (Array.isArray(lines)) for (const line of lines) printError(`  | ${line}`);
    if (process.env.TSVMM_DEBUG) printError(error.stack ?? '');
  }
}

/** Given by src/cli/launch.ts; not there where main.ts runs by itself. */
declare const keepCode: (() => void) | undefined;

/** Ends the process at once, without Node's teardown, which takes longer than a machine's end. */
async function exit(status: number): Promise<void> {
  try {
    if (typeof keepCode === 'function') keepCode();
    const { addon } = await import('../addon/index.js');
    addon().exitNow(status);
  } catch {
    process.exit(status);
  }
}

// A fault in tsvmm itself. What a command has to undo (the terminal's mode) it does on 'exit'.
process.on('uncaughtException', (error) => {
  process.emit('exit', EXIT_FAILURE);
  report(error);
  void exit(EXIT_FAILURE);
});

main(process.argv.slice(2)).then(exit, (error) => {
  report(error);
  return exit(EXIT_FAILURE);
});
