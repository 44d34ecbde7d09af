import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import type { GuestProcess } from '../agent-results.js';
import type { Container } from '../container.js';
import { messageOf } from '../errors.js';

/** Clock ticks a second, as the kernel counts for user space on x86-64. */
const TICKS = 100;
/** Who looks waits at most that long for a guest that does not answer, and then sees what was. */
const PATIENCE_MS = 5000;
/** TASK_COMM_LEN, without its end. */
const MOST_NAME = 15;

/** The line of the host's /proc/stat that tells when it booted: times of processes are counted from there. */
export function hostBootTime(): string {
  return /^btime \d+$/m.exec(readFileSync('/proc/stat', 'latin1'))?.[0] ?? 'btime 0';
}

/**
 * Fills /proc of the view that this thread is in with the container's processes, as far as the guest tells of them, whenever
 * somebody opens it. `podman top` reads it.
 * @param bootTime of {@link hostBootTime}
 */
export function showProcesses(container: Container, bootTime: string): void {
  const view = new ProcessView('/proc', Number(container.startTime), bootTime);
  const { sandbox, options } = container;
  try {
    const gate = new (addon().OpenGate)('/proc', () => {
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise<undefined>((resolve) => {
        timer = setTimeout(() => resolve(undefined), PATIENCE_MS);
      });
      Promise.race([sandbox.agent.processes(options.id), patience])
        .then((processes) => processes && view.show(processes))
        .catch((error) => container.logLine(`warning: /proc of the view: ${messageOf(error)}`))
        .finally(() => {
          clearTimeout(timer);
          gate.letIn();
        });
    });
  } catch (error) {
    container.logLine(`warning: other programs do not see the container's processes: ${messageOf(error)}`);
  }
}

/** A folder with files as in proc(5), of the processes of a guest. */
export class ProcessView {
  /** Kept, since this process too would wait for itself if it opened the folder. */
  #shown = new Set<string>();

  /** @param startTime of the machine, in ticks since the host's boot */
  constructor(
    private readonly folder: string,
    private readonly startTime: number,
    bootTime: string,
  ) {
    writeFileSync(`${folder}/stat`, `${bootTime}\n`);
  }

  show(processes: readonly GuestProcess[]): void {
    const inside = new Map(processes.map(({ pid, nsPid }) => [pid, nsPid]));
    const shown = new Set<string>();
    for (const process of processes) {
      shown.add(String(process.nsPid));
      this.#write(process, inside.get(process.ppid) ?? 0);
    }
    for (const name of this.#shown) {
      if (!shown.has(name)) rmSync(`${this.folder}/${name}`, { recursive: true, force: true });
    }
    this.#shown = shown;
  }

  #write(process: GuestProcess, parent: number): void {
    const { nsPid: pid, command, cpuTime, startTime, threads, uid, tty } = process;
    const folder = `${this.folder}/${pid}`;
    if (mkdirSync(`${folder}/ns`, { recursive: true }) !== undefined) {
      mkdirSync(`${folder}/attr`);
      writeFileSync(`${folder}/attr/current`, '');
      symlinkSync('pid:[machine]', `${folder}/ns/pid`);
      symlinkSync('user:[machine]', `${folder}/ns/user`);
    }
    const name = nameOf(command);
    const state = /^[A-Z]$/i.test(process.state) ? process.state : 'S';
    const terminal = /^pts\/(\d+)$/.exec(tty)?.[1];
    // Major number 136, as proc(5) puts it together for small minor ones.
    const ttyNumber = terminal === undefined ? 0 : (136 << 8) | (Number(terminal) & 0xff);
    const started = Math.round(this.startTime + startTime * TICKS);
    const zeros = (count: number): string => Array(count).fill('0').join(' ');
    writeFileSync(
      `${folder}/stat`,
      `${pid} (${name}) ${state} ${parent} ${pid} ${pid} ${ttyNumber} -1 ${zeros(5)} ${Math.round(cpuTime * TICKS)} ${zeros(3)} 20 0 ${threads} 0 ${started} ${zeros(30)}\n`,
    );
    writeFileSync(
      `${folder}/status`,
      `Name:\t${name}\nState:\t${state}\nTgid:\t${pid}\nPid:\t${pid}\nPPid:\t${parent}\nUid:\t${fourTimes(uid)}\nGid:\t${fourTimes(0)}\nThreads:\t${threads}\n`,
    );
    // A process without arguments is shown by its name, which ps(1) puts in brackets itself.
    const bare = command.length === 1 && /^\[.*\]$/s.test(command[0] ?? '');
    writeFileSync(`${folder}/cmdline`, bare ? '' : command.map((word) => `${word}\0`).join(''));
  }
}

function fourTimes(id: number): string {
  return Array(4).fill(id).join('\t');
}

/** The name of a process: of its program, as the kernel would cut it. */
function nameOf(command: readonly string[]): string {
  const program = (command[0] ?? '').replace(/^\[|\]$/g, '').replace(/^.*\//s, '');
  return program.replace(/[^\x21-\x7e]|[()]/g, '_').slice(0, MOST_NAME) || '_';
}
