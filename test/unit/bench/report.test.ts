import t from 'tap';
import {
  microChart,
  microTable,
  phasesChart,
  startChart,
  startTables,
  table,
} from '../../../bench/report.js';
import type { StartResults } from '../../../bench/results.js';

const results: StartResults = {
  unit: 'instructions',
  series: [
    { name: 'node -e 1', end: [110e6, 112e6, 111e6] },
    { name: 'tsvmm boot', firstLine: [200e6, 202e6, 201e6], end: [230e6, 240e6, 235e6] },
  ],
  footprints: [{ name: 'tsvmm boot', resident: 45_000, proportional: 41_234 }],
  phases: [
    {
      name: 'tsvmm boot',
      phases: [
        { name: 'node', since: 90e6 },
        { name: 'end', since: 145e6 },
      ],
    },
  ],
};

t.test('columns are as wide as they have to be', async (t) => {
  t.strictSame(
    table(
      ['', 'ms'],
      [
        ['a', '1.0'],
        ['longer', '100.0'],
      ],
    ).split('\n'),
    ['           ms', '------  -----', 'a         1.0', 'longer  100.0'],
  );
});

t.test('a table of starts has the distribution in the unit', async (t) => {
  const text = startTables(results);
  t.match(text, /G instructions, of 3/);
  t.match(text, /^tsvmm boot +0\.201 +0\.202 +0\.200 +0\.202 +0\.235 +0\.240 +0\.230 +0\.240$/m);
  t.match(text, /^node -e 1 +0\.111 +0\.112 +0\.110 +0\.112$/m);
  t.match(text, /^tsvmm boot +45,000 +41,234$/m);
  t.match(text, /^node +0\.0900$/m);
});

t.test('times are milliseconds', async (t) => {
  t.match(startTables({ ...results, unit: 'nanoseconds' }), /^node -e 1 +111\.0 /m);
});

t.test('charts of all results', async (t) => {
  t.match(startChart(results), '0.201 / 0.235');
  const [phases = { name: '', phases: [] }] = results.phases;
  t.match(phasesChart(phases, 'instructions'), 'tsvmm boot, by phase');
  const micro = [{ name: 'exit', median: 7500, mean: 7600, margin: 76, samples: 60 }];
  t.match(microChart(micro), '>7500<');
  t.match(microTable(micro), /^exit +7500 +7600 +1\.0 % +133,333 +60$/m);
});
