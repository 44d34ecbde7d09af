import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import t from 'tap';
import { ConsoleLog } from '../../../src/runtime/console-log.js';

t.test('the last lines of a console, fit for a terminal', async (t) => {
  const log = new ConsoleLog();
  writeSync(log.fd, 'first\r\n\r\n\u001b[31mred\r\nthird\nlast without end');
  t.same(await log.lastLines(3), ['[31mred', 'third', 'last without end']);
});

t.test('a console that says nothing', async (t) => {
  t.same(await new ConsoleLog().lastLines(5), []);
});

t.test('a console that says much is drained, and only its end is kept', async (t) => {
  const log = new ConsoleLog();
  // Another process writes, as the machine's thread does: more than the pipe holds.
  const writer = spawn(
    'sh',
    ['-c', 'i=0; while [ $i -lt 20000 ]; do echo "line $i of many"; i=$((i+1)); done'],
    {
      stdio: ['ignore', log.fd, 'inherit'],
    },
  );
  await once(writer, 'exit');
  const lines = await log.lastLines(2000);
  t.equal(lines.at(-1), 'line 19999 of many');
  t.ok(lines.length > 1000 && lines.length < 4000);
  t.ok(lines.slice(1).every((line) => /^line \d+ of many$/.test(line)));
});
