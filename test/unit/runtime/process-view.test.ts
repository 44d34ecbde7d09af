// The folder like /proc in which other programs see a guest's processes.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { GuestProcess } from '../../../src/runtime/agent-results.js';
import { hostBootTime, ProcessView } from '../../../src/runtime/sandbox/process-view.js';
import { temporaryFolder } from '../../support/bundle.js';

const SHELL: GuestProcess = {
  pid: 40,
  nsPid: 1,
  ppid: 30,
  uid: 1000,
  tty: 'pts/3',
  state: 'R',
  startTime: 2,
  cpuTime: 0.5,
  threads: 2,
  command: ['/bin/sh', '-c', 'a b'],
};
const CHILD: GuestProcess = {
  ...SHELL,
  pid: 41,
  nsPid: 7,
  ppid: 40,
  tty: '?',
  state: 'S R',
  command: ['[a) R 1 worker with a long name]'],
};

t.test('processes as proc(5) has them', async (t) => {
  const folder = temporaryFolder(t);
  const view = new ProcessView(folder, 1000, 'btime 1700000000');
  view.show([SHELL, CHILD]);
  const read = (name: string) => readFileSync(join(folder, name), 'utf8');
  t.equal(read('stat'), 'btime 1700000000\n');
  const stat = read('1/stat').trimEnd().split(' ');
  t.equal(stat.length, 52);
  t.same(stat.slice(0, 5), ['1', '(sh)', 'R', '0', '1'], 'a parent outside of the container is 0');
  t.equal(stat[6], String((136 << 8) | 3), 'the terminal');
  t.equal(stat[13], '50', 'time in ticks');
  t.equal(stat[19], '2', 'threads');
  t.equal(stat[21], '1200', "the start, in ticks since the host's boot");
  t.equal(read('1/cmdline'), '/bin/sh\0-c\0a b\0');
  t.match(read('1/status'), /^Name:\tsh\n.*^PPid:\t0\nUid:\t1000\t1000\t1000\t1000\nGid:/ms);
  t.equal(read('1/attr/current'), '');
  t.equal(readlinkSync(join(folder, '1/ns/pid')), 'pid:[machine]');
  t.match(read('7/stat'), /^7 \(a__R_1_worker_w\) S 1 /, 'a name cannot look like other fields');
  t.equal(read('7/cmdline'), '', 'a process without arguments');
});

t.test('what has ended is gone', async (t) => {
  const folder = temporaryFolder(t);
  const view = new ProcessView(folder, 0, hostBootTime());
  view.show([SHELL, CHILD]);
  view.show([{ ...CHILD, command: ['sleep', '1'] }]);
  t.notOk(existsSync(join(folder, '1')));
  t.same(readdirSync(folder).sort(), ['7', 'stat']);
  t.equal(readFileSync(join(folder, '7/cmdline'), 'utf8'), 'sleep\u00001\0');
  t.match(hostBootTime(), /^btime [1-9]\d+$/);
});
