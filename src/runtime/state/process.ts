import { readFileSync } from 'node:fs';

/**
 * When a process began, in clock ticks since the host's boot: with the process ID a name that is never given twice. Undefined
 * where there is no such process, or only its exit status is left (proc(5), /proc/PID/stat: fields 3 and 22).
 */
export function startTimeOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The second field, the command's name, can hold anything, spaces and parentheses too.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  return state === 'Z' || state === 'X' ? undefined : fields[19];
}
