import t from 'tap';
import { scanGlobalFlags } from '../../../src/cli/global-flags.js';

const scan = (line: string) => {
  const { values, command, unknown, incomplete } = scanGlobalFlags(line.split(' ').filter(Boolean));
  return { values: Object.fromEntries(values), command, unknown, incomplete };
};

t.test('as callers write them', async (t) => {
  const cases: [string, Record<string, string>, number][] = [
    ['', {}, 0],
    ['state x', {}, 0],
    [
      '--root /r --log /l --log-format json create --bundle b x',
      { root: '/r', log: '/l', 'log-format': 'json' },
      6,
    ],
    [
      '--root=/r --debug --systemd-cgroup start x',
      { root: '/r', debug: 'true', 'systemd-cgroup': 'true' },
      3,
    ],
    ['--rootless start x', { rootless: 'true' }, 1],
    ['--rootless=false start x', { rootless: 'false' }, 1],
    ['--rootless auto start x', { rootless: 'auto' }, 2],
    ['-root /r -v', { root: '/r', version: 'true' }, 3],
    [
      '--log /a --log /b --criu c --cgroup-manager cgroupfs state',
      { log: '/b', criu: 'c', 'cgroup-manager': 'cgroupfs' },
      8,
    ],
    ['-h', { help: 'true' }, 1],
    ['state --root /r', {}, 0],
  ];
  for (const [line, values, command] of cases) {
    t.same(scan(line), { values, command, unknown: undefined, incomplete: undefined }, line);
  }
});

t.test('what is wrong is told apart', async (t) => {
  t.match(scan('--rot /r state'), { unknown: '--rot', command: 1 });
  t.match(scan('--constructor state'), { unknown: '--constructor' });
  t.match(scan('--root'), { incomplete: '--root', command: 1 });
});
