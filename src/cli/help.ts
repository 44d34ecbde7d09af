import { printLine } from '../runtime/output.js';
import { OCI_VERSION_MAX } from '../runtime/spec/version.js';
import { suggestion } from '../runtime/values.js';
import { UsageError } from './arguments.js';
import { packageVersion } from './version.js';

const COMMANDS = [
  ['create', "make a container's machine, its process not yet started"],
  ['start', 'start the process of a created container'],
  ['state', "a container's state, as JSON"],
  ['kill', "send a signal to a container's process, or to all of them"],
  ['delete', 'remove a container'],
  ['run', 'run an OCI bundle in a microVM of its own'],
  ['exec', 'run another process in a container'],
  ['list', 'the containers'],
  ['ps', "a container's processes"],
  ['events', "a container's statistics and out-of-memory kills"],
  ['pause', 'stop all processes of a container'],
  ['resume', 'let them go on'],
  ['update', "change a container's limits"],
  ['logs', "what a container's machine wrote to its console"],
  ['spec', 'write a config.json to begin with'],
  ['features', 'what this runtime supports, as JSON'],
  ['checkpoint', '(to come)'],
  ['restore', '(to come)'],
  ['boot', 'boot a Linux kernel, its console on the terminal'],
  ['doctor', 'tell whether this host can run microVMs, and what is missing'],
  ['initramfs', "make an initramfs for a distribution's kernel"],
] as const;

const USAGE = `usage: tsvmm [GLOBAL OPTIONS] COMMAND [OPTIONS]

${COMMANDS.map(([name, what]) => `  ${name.padEnd(11)} ${what}`).join('\n')}

Global options:
  --root DIR            where the state of containers lies: /run/tsvmm, or $XDG_RUNTIME_DIR/tsvmm
  --log FILE            errors and warnings are appended to it as well
  --log-format FORMAT   text or json
  --debug               more is told
  --systemd-cgroup, --cgroup-manager NAME, --rootless[=auto|true|false], --criu FILE
                        taken for compatibility, without effect
  --help, -h            this text; after a command, that command's
  --version, -v         the version

A command that fails ends with status 1; exec with 255; run, boot, doctor and initramfs with 125.
TSVMM_DEBUG=1 adds the stack to its message.`;

/** `--help`, `help`, `--version`, and what is no command. */
export async function main(
  name: string | undefined,
  rest: readonly string[],
  flags: ReadonlyMap<string, string>,
  load: (name: string) => Promise<{ readonly usage: string }> | undefined,
): Promise<number> {
  if (flags.has('version')) {
    printLine(versionText());
    return 0;
  }
  const isHelp = flags.has('help') || name === 'help' || name === 'h';
  const about = name === 'help' || name === 'h' ? rest[0] : name;
  if (isHelp && about === undefined) {
    printLine(USAGE);
    return 0;
  }
  if (about === undefined) throw new UsageError('no command is given; see tsvmm --help');
  const command = load(about);
  if (command === undefined) {
    const names = COMMANDS.map(([known]) => known);
    const asked = isHelp || rest.some((word) => word === '-h' || word === '--help');
    // As runc says it.
    const what = asked ? `No help topic for '${about}'` : `unknown command ${about}`;
    throw new UsageError(`${what}${suggestion(about, names)}; see tsvmm --help`);
  }
  printLine((await command).usage);
  return 0;
}

/** As runc's: callers look for `NAME version X` in the first line, and for `commit:` and `spec:`. */
export function versionText(): string {
  return `tsvmm version ${packageVersion()}\ncommit: v${packageVersion()}\nspec: ${OCI_VERSION_MAX}\nnode: ${process.version}`;
}
