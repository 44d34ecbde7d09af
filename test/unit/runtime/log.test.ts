import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  configureLog,
  isDebugging,
  logDebug,
  logError,
  logWarning,
  redirectLog,
} from '../../../src/runtime/log.js';

const folder = mkdtempSync(join(tmpdir(), 'tsvmm-log-'));
t.teardown(() => rmSync(folder, { recursive: true }));

const said: string[] = [];
const taken = (): string[] => said.splice(0);

t.test('without a file, all goes to people', async (t) => {
  redirectLog((line) => said.push(line));
  logError('one\ntwo');
  logWarning('three');
  logDebug('four');
  t.same(taken(), ['tsvmm: one two', 'tsvmm: warning: three']);
  configureLog({ format: 'json', debug: true });
  t.ok(isDebugging());
  logWarning('a "b"');
  t.match(JSON.parse(taken()[0] ?? ''), { level: 'warning', msg: 'a "b"' });
  configureLog({ format: 'text', debug: true });
  logDebug('x');
  t.match(taken()[0], /^time="\d{4}-[^"]+Z" level=debug msg="x"$/);
});

t.test('with a file, only errors go to people as well', async (t) => {
  const file = join(folder, 'log');
  configureLog({ file, format: 'json', debug: false });
  logError('e');
  logWarning('w');
  logDebug('d');
  redirectLog(undefined);
  logError('alone');
  t.same(taken(), ['tsvmm: e']);
  t.match(
    readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [
      { level: 'error', msg: 'e' },
      { level: 'warning', msg: 'w' },
      { level: 'error', msg: 'alone' },
    ],
  );
  t.throws(() => configureLog({ file: '/no/such/log', format: 'text', debug: false }), {
    message: '--log: /no/such/log: no such file or folder',
  });
});
