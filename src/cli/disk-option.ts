import type { DiskConfig } from '../machine/config.js';
import { parseInteger, parseSize, UsageError } from './arguments.js';

/** The value of `--disk`. FILE may hold commas: only what is an option at its end is one. @throws UsageError */
export function parseDisk(text: string): DiskConfig {
  const disk: { -readonly [K in keyof DiskConfig]: DiskConfig[K] } = { path: text };
  for (;;) {
    const match = /^(.*),(?:(ro|direct)|(queues|engine|iops|rate)=([^,]*))$/s.exec(disk.path);
    if (match === null) break;
    const [, rest = '', flag, name, value = ''] = match;
    const where = `--disk ${text}: ${name}`;
    disk.path = rest;
    if (flag === 'ro') disk.readOnly = true;
    else if (flag === 'direct') disk.direct = true;
    else if (name === 'queues') disk.queues = parseInteger(value, where, 1, 16);
    else if (name === 'engine') disk.engine = parseEngine(value, where);
    else if (name === 'iops')
      disk.limits = { ...disk.limits, operationsPerSecond: parseInteger(value, where, 1, 1e9) };
    else disk.limits = { ...disk.limits, bytesPerSecond: parseRate(value, where) };
  }
  if (disk.path === '') {
    throw new UsageError(`--disk: expected FILE or FILE,OPTION..., got ${JSON.stringify(text)}`);
  }
  return disk;
}

function parseRate(text: string, where: string): number {
  const bytes = parseSize(text, where);
  if (bytes === 0) throw new UsageError(`${where}: expected more than 0 bytes a second`);
  return bytes;
}

function parseEngine(text: string, where: string): 'uring' | 'threads' {
  if (text === 'uring' || text === 'threads') return text;
  throw new UsageError(`${where}: expected uring or threads, got ${JSON.stringify(text)}`);
}
