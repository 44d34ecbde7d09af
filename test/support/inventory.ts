import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** What there is on this host of each kind that a container could leave behind. */
export function inventory(): Record<string, string[]> {
  const list = (text: string): string[] =>
    text
      .split('\n')
      .filter((line) => line !== '')
      .sort();
  const run = (program: string, ...args: string[]): string[] =>
    list(execFileSync(program, args, { encoding: 'utf8' }));
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(commandLine)
    .filter((line) => /tsvmm|passt|crun/.test(line) && !line.includes('leaks'));
  return {
    processes,
    mounts: list(readFileSync('/proc/self/mounts', 'utf8')),
    interfaces: run('ip', '-o', 'link').map((line) => line.split(':')[1] ?? ''),
    qdiscs: run('tc', 'qdisc'),
    sockets: list(readFileSync('/proc/net/unix', 'utf8')).filter((line) => line.includes('tsvmm')),
    cgroups: run('find', '/sys/fs/cgroup', '-type', 'd'),
    // Tests of this host, which may run beside this one, have others there.
    temporary: readdirSync('/tmp').filter((name) => /^(\.?tsvmm-(\d|pid)|passt)/.test(name)),
    devices: readdirSync('/dev').sort(),
  };
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}
