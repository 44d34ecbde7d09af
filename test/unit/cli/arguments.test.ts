import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  parseArguments,
  parseInteger,
  parseMemory,
  parseSeconds,
  parseSize,
  suggestion,
} from '../../../src/cli/arguments.js';
import { bundleAndId } from '../../../src/cli/run.js';

const TABLE = { memory: 'value', disk: 'list', rng: 'flag', bundle: 'value' } as const;
const parse = (...args: string[]) => parseArguments(args, TABLE, { b: 'bundle', r: 'rng' });

t.test('options and positionals', async (t) => {
  t.same(parse(), { options: {}, positionals: [] });
  t.same(parse('k', '--memory', '1G', '--disk=a', '--rng', '--disk', 'b=c', 'x', '-b', 'd', '-'), {
    options: { memory: '1G', disk: ['a', 'b=c'], rng: true, bundle: 'd' },
    positionals: ['k', 'x', '-'],
  });
  t.same(parse('--', '--rng'), { options: {}, positionals: ['--rng'] });
  t.same(
    parse('--memory', '--rng'),
    { options: { memory: '--rng' }, positionals: [] },
    'a value may look like anything',
  );
  t.same(parse('--rng=false', '-b=x'), { options: { rng: false, bundle: 'x' }, positionals: [] });
  t.same(parse('-rbx'), { options: { rng: true, bundle: 'x' }, positionals: [] });
  t.same(parse('-rb', 'x'), { options: { rng: true, bundle: 'x' }, positionals: [] });
  t.same(
    parseArguments(['--rng', 'id', 'ls', '--rng', '--', 'x'], TABLE, {}, 1),
    { options: { rng: true }, positionals: ['id', 'ls', '--rng', '--', 'x'] },
    'a command line behind a positional',
  );
  t.same(parseArguments(['id', '--', 'ls', '-l'], TABLE, {}, 1).positionals, ['id', 'ls', '-l']);
  t.same(parse('--memory='), { options: { memory: '' }, positionals: [] });
});

t.test('what is wrong is named, with what was meant', async (t) => {
  const cases: [string[], string][] = [
    [['--memroy', '1G'], 'unknown option --memroy: did you mean --memory?'],
    [['--mem=1G'], 'unknown option --mem: did you mean --memory?'],
    [['-x'], 'unknown option -x: did you mean -b?'],
    [['--frobnicate'], 'unknown option --frobnicate'],
    [['--constructor'], 'unknown option --constructor'],
    [['--__proto__'], 'unknown option --__proto__'],
    [['--memory'], '--memory: its value is missing'],
    [['--rng=yes'], '--rng: expected true or false, got "yes"'],
    [['-rb'], '-b: its value is missing'],
    [['-rx'], 'unknown option -rx'],
    [['--memory', '1', '--memory', '2'], '--memory is given twice'],
  ];
  for (const [args, message] of cases)
    t.throws(() => parse(...args), { name: 'UserError', message }, args.join(' '));
  t.equal(suggestion('rnu', ['run', 'boot']), ': did you mean run?');
  t.equal(suggestion('whatever', ['run', 'boot']), '');
});

t.test('sizes', async (t) => {
  for (const [text, bytes] of [
    ['0', 0],
    ['4096', 4096],
    ['128M', 128 << 20],
    ['1g', 1 << 30],
    ['512MiB', 512 << 20],
    ['512MB', 512 << 20],
    ['1.5G', 1.5 * 2 ** 30],
    ['2 K', 2048],
    ['1T', 2 ** 40],
  ] as const) {
    t.equal(parseSize(text, '--memory'), bytes, text);
  }
  for (const text of ['', 'M', '-1', '1X', '1e9', '0x10', '1MM', '99999999999999999999', '0.3']) {
    t.throws(() => parseSize(text, '--memory'), { message: /^--memory: expected a size like 128M/ }, text);
  }
  t.throws(() => parseMemory('1000'), { message: '--memory: 1000 bytes are no multiple of 4096' });
});

t.test('numbers and seconds', async (t) => {
  t.equal(parseInteger('4', '--cpus', 1, 254), 4);
  for (const text of ['0', '255', '1.5', '', 'four', '-1', '1e2']) {
    t.throws(() => parseInteger(text, '--cpus', 1, 254), {
      message: /^--cpus: expected a whole number from 1 to 254/,
    });
  }
  t.equal(parseSeconds('0.5', '--deadline'), 0.5);
  for (const text of ['0', '-1', 'inf', '', '1s', '10000000']) {
    t.throws(() => parseSeconds(text, '--deadline'), { message: /^--deadline: expected seconds/ });
  }
});

t.test('the bundle and the ID are told apart', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tsvmm-cli-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'demo'));
  writeFileSync(join(folder, 'demo/config.json'), '{}');
  const before = process.cwd();
  process.chdir(folder);
  t.teardown(() => process.chdir(before));
  t.same(bundleAndId(undefined, []), { bundle: '.', id: undefined });
  t.same(bundleAndId(undefined, ['demo']), { bundle: 'demo', id: undefined });
  t.same(bundleAndId(undefined, ['other']), { bundle: '.', id: 'other' });
  t.same(bundleAndId(undefined, ['no/such']), { bundle: 'no/such', id: undefined });
  t.same(bundleAndId(undefined, ['other', 'id']), { bundle: 'other', id: 'id' });
  t.same(bundleAndId('b', ['demo']), { bundle: 'b', id: 'demo' });
  t.same(bundleAndId('b', []), { bundle: 'b', id: undefined });
  t.throws(() => bundleAndId('b', ['demo', 'id']), { message: 'run: demo: the bundle is given twice' });
  t.throws(() => bundleAndId(undefined, ['a', 'b', 'c']), {
    message: 'run: c: there is nothing after the ID',
  });
});
