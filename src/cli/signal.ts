import { constants } from 'node:os';
import { UsageError } from './arguments.js';

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** A signal's number (signal(7)): `SIGTERM`, `TERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`. 0 only tests. @throws UsageError */
export function parseSignal(text: string): number {
  if (/^\d{1,2}$/.test(text)) {
    const number = Number(text);
    if (number <= SIGRTMAX) return number;
  }
  const name = text.toUpperCase().replace(/^SIG/, '');
  const known: Readonly<Record<string, number>> = constants.signals;
  const number = Object.hasOwn(known, `SIG${name}`) ? known[`SIG${name}`] : realTime(name);
  if (number === undefined) throw new UsageError(`unknown signal ${JSON.stringify(text)}`);
  return number;
}

function realTime(name: string): number | undefined {
  const [, base, sign, offset = '0'] = /^(RTMIN|RTMAX)(?:([+-])(\d{1,2}))?$/.exec(name) ?? [];
  if (base === undefined) return undefined;
  const number = (base === 'RTMIN' ? SIGRTMIN : SIGRTMAX) + (sign === '-' ? -1 : 1) * Number(offset);
  return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
}
