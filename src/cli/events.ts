import { addon } from '../addon/index.js';
import { askSandbox, NotRunningError } from '../runtime/control-client.js';
import { messageOf, UserError } from '../runtime/errors.js';
import { logError } from '../runtime/log.js';
import { printLine } from '../runtime/output.js';
import { stringifyExactJson } from '../runtime/spec/exact-json.js';
import { ContainerStore } from '../runtime/state/store.js';
import { STATS_DIGITS, statsEvent } from '../runtime/stats.js';
import { parseArguments, positional, UsageError } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm events [OPTIONS] ID

Prints a container's statistics (memory, cpu, pids, block devices) again and again, and each out-of-memory kill when it
happens, as a line of JSON each, until the container stops.

  --interval DURATION       between two statistics: 5s by default; 500ms, 1m30s
  --stats                   the statistics once, and no more`;

const OPTIONS = { interval: 'value', stats: 'flag' } as const;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS);
  const [id = ''] = positional('events', ['ID'], positionals);
  const interval = parseDuration(options.interval ?? '5s', '--interval');
  const store = new ContainerStore(root);
  if (store.load(id).status === 'stopped') throw new UserError(`container with id ${id} is not running`);
  const printStats = (): void => {
    printLine(stringifyExactJson(statsEvent(id, askSandbox(store, id, 'stats')), STATS_DIGITS));
  };
  if (options.stats === true) {
    printStats();
    return 0;
  }
  return new Promise((resolve, reject) => {
    const timer = setInterval(() => {
      try {
        printStats();
      } catch (error) {
        // The end of the container is told by the stream below.
        if (!(error instanceof NotRunningError)) logError(messageOf(error));
      }
    }, interval);
    const request = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'events', params: {} });
    const stream = addon().controlStream(
      store.socketPath(id),
      request,
      (line) => {
        const event = eventIn(line);
        if (event !== undefined) printLine(JSON.stringify(event));
      },
      () => {
        clearInterval(timer);
        resolve(0);
      },
    );
    if (typeof stream === 'number') {
      clearInterval(timer);
      reject(new NotRunningError('container not running'));
    }
  });
}

/** The notification of a line, as callers get it: `{"type": "oom", "id": ...}`. */
function eventIn(line: string): object | undefined {
  const message = JSON.parse(line) as { method?: unknown; params?: unknown };
  const { method, params } = message;
  return method === 'event' && typeof params === 'object' && params !== null ? params : undefined;
}

const DURATION_UNITS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/** A duration as Go writes it, in milliseconds: `5s`, `1m30s`, `500ms`. @throws UsageError */
export function parseDuration(text: string, option: string): number {
  let total = 0;
  const rest = text.replace(/(\d+(?:\.\d+)?)(h|ms|m|s)/g, (_, count: string, unit: string) => {
    total += Number(count) * (DURATION_UNITS[unit] ?? 0);
    return '';
  });
  // A timer's limit is 2^31 - 1 milliseconds.
  if (rest !== '' || !(total >= 1 && total < 2 ** 31)) {
    throw new UsageError(
      `${option}: expected a duration like 5s, 1m30s or 500ms, got ${JSON.stringify(text)}`,
    );
  }
  return total;
}
