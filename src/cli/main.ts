import { logDebug, logError } from '../runtime/log.js';
import { printError, printLine } from '../runtime/output.js';
import { scanGlobalFlags } from './global-flags.js';
import { type Globals, readGlobals } from './globals.js';
import { keepCompiledCode } from './keep-code.js';

/** What each command's file offers. They are loaded when they are used: each start is counted. */
interface Command {
  readonly usage: string;
  /** Resolves with the exit status. */
  main(args: readonly string[], globals: Globals): Promise<number>;
}

function load(name: string): Promise<Command> | undefined {
  switch (name) {
    case 'run':
      return import('./run.js');
    case 'create':
      return import('./create.js');
    case 'sandbox':
      return import('./sandbox.js');
    case 'start':
      return import('./start.js');
    case 'kill':
      return import('./kill.js');
    case 'delete':
      return import('./delete.js');
    case 'boot':
      return import('./boot.js');
    case 'doctor':
      return import('./doctor.js');
    case 'initramfs':
      return import('./initramfs.js');
    case 'state':
      return import('./state.js');
    case 'list':
      return import('./list.js');
    case 'exec':
      return import('./exec.js');
    case 'ps':
      return import('./ps.js');
    case 'events':
      return import('./events.js');
    case 'pause':
      return import('./pause.js');
    case 'resume':
      return import('./resume.js');
    case 'update':
      return import('./update.js');
    case 'logs':
      return import('./logs.js');
    case 'spec':
      return import('./spec.js');
    case 'features':
      return import('./features.js');
    case 'checkpoint':
    case 'restore':
      return import('./checkpoint.js');
    default:
      return undefined;
  }
}

/** What a command ends with where it fails itself; 1 where nothing else is said. */
const FAILURES: Readonly<Record<string, number>> = {
  // So that the status of a process is told from tsvmm's own.
  exec: 255,
  run: 125,
  boot: 125,
  doctor: 125,
  initramfs: 125,
};

let failure = 1;

async function main(argv: readonly string[]): Promise<number> {
  const flags = scanGlobalFlags(argv);
  const name = argv[flags.command];
  const rest = argv.slice(flags.command + 1);
  if (name !== undefined) failure = FAILURES[name] ?? 1;
  const globals = await readGlobals(flags);
  if (globals.debug) logDebug(`tsvmm ${argv.join(' ')}`);
  const command = name === undefined ? undefined : load(name);
  if (command === undefined || flags.values.has('help') || flags.values.has('version')) {
    return (await import('./help.js')).main(name, rest, flags.values, load);
  }
  const { usage, main } = await command;
  if (rest[0] === '--help' || rest[0] === '-h') {
    printLine(usage);
    return 0;
  }
  return main(rest, globals);
}

/** One line for people and the log, and what belongs to it; with TSVMM_DEBUG=1 the stack too. */
function report(error: unknown): void {
  logError(error instanceof Error ? error.message : String(error));
  if (error instanceof Error) {
    const lines: unknown = Reflect.get(error, 'consoleLines');
    if (Array.isArray(lines)) for (const line of lines) printError(`  | ${line}`);
    if (process.env.TSVMM_DEBUG) printError(error.stack ?? '');
    logDebug(error.stack ?? '');
  }
}

/** Ends the process at once, without Node's teardown, which takes longer than a machine's end. */
async function exit(status: number): Promise<void> {
  try {
    keepCompiledCode();
    const { addon } = await import('../addon/index.js');
    addon().exitNow(status);
  } catch {
    process.exit(status);
  }
}

// A fault in tsvmm itself. What a command has to undo (the terminal's mode) it does on 'exit'.
process.on('uncaughtException', (error) => {
  process.emit('exit', failure);
  report(error);
  void exit(failure);
});

main(process.argv.slice(2)).then(exit, (error) => {
  report(error);
  const own: unknown = error instanceof Error ? Reflect.get(error, 'exitStatus') : undefined;
  return exit(typeof own === 'number' ? own : failure);
});
