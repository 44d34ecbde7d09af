import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../src/addon/index.js';
import { UserError } from '../../../src/runtime/errors.js';
import { parseExactJson, stringifyExactJson } from '../../../src/runtime/spec/exact-json.js';
import { loadSpec, parseSpec } from '../../../src/runtime/spec/load.js';
import { sampleSpec } from '../../support/spec.js';

/** The message with which a text is refused. */
function refusal(text: string): string {
  try {
    parseSpec(text);
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
  return 'accepted';
}

/** The sample with the value at a path of names replaced, or taken away where it is undefined. */
function changed(path: readonly (string | number)[], value: unknown): string {
  const spec: unknown = sampleSpec();
  let at: unknown = spec;
  for (const name of path.slice(0, -1)) at = Reflect.get(Object(at), name);
  const last = path.at(-1) ?? '';
  if (value === undefined) Reflect.deleteProperty(Object(at), last);
  else Reflect.set(Object(at), last, value);
  return JSON.stringify(spec);
}

t.test('a complete config.json is accepted', async (t) => {
  t.equal(refusal(JSON.stringify(sampleSpec())), 'accepted');
  const least = { ociVersion: '1.3.0', root: { path: 'r' }, process: { cwd: '/', args: ['a'] } };
  t.equal(refusal(JSON.stringify(least)), 'accepted');
  t.equal(refusal(`\ufeff${JSON.stringify(least)}`), 'accepted', 'a byte order mark is no obstacle');
});

t.test('errors name the field, what was expected and what was found', async (t) => {
  const cases: [(string | number)[], unknown, string][] = [
    [['process', 'args'], 5, 'process.args: expected an array of strings, at least one, got the number 5'],
    [['process', 'args'], [], 'process.args: expected an array of strings, at least one, got an empty array'],
    [['process', 'args', 1], 7, 'process.args[1]: expected a string, got the number 7'],
    [
      ['process', 'args'],
      undefined,
      'process.args: expected an array of strings, at least one, it is missing',
    ],
    [['process', 'cwd'], 'relative', 'process.cwd: expected an absolute path, got "relative"'],
    [
      ['process', 'user', 'uid'],
      -1,
      'process.user.uid: expected a whole number from 0 to 4294967295, got the number -1',
    ],
    [
      ['process', 'user', 'uid'],
      1.5,
      'process.user.uid: expected a whole number from 0 to 4294967295, got the fraction 1.5',
    ],
    [['process', 'terminal'], 'yes', 'process.terminal: expected true or false, got "yes"'],
    [['process'], undefined, 'process: expected an object, it is missing'],
    [['root'], null, 'root: expected an object, got null'],
    [['root', 'path'], '', 'root.path: expected a string that is not empty, got an empty string'],
    [
      ['mounts', 1, 'destination'],
      undefined,
      'mounts[1].destination: expected a string that is not empty, it is missing',
    ],
    [
      ['linux', 'resources', 'memory', 'limit'],
      '1G',
      'linux.resources.memory.limit: expected a whole number of 64 bits, got "1G"',
    ],
    [
      ['linux', 'sysctl', 'net.ipv4.ip_forward'],
      1,
      'linux.sysctl.net.ipv4.ip_forward: expected a string, got the number 1',
    ],
    [['vm', 'kernel', 'path'], undefined, 'vm.kernel.path: expected an absolute path, it is missing'],
    [
      ['hooks', 'poststop'],
      [{ path: '/x', timeout: 0 }],
      'hooks.poststop[0].timeout: expected a whole number, at least 1, got the number 0',
    ],
    [
      ['linux', 'namespaces', 4, 'type'],
      'net',
      'linux.namespaces[4].type: expected one of "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time", got "net"',
    ],
    [
      ['process', 'consoleSize', 'width'],
      65536,
      'process.consoleSize.width: expected a whole number from 0 to 65535, got the number 65536',
    ],
  ];
  for (const [path, value, message] of cases)
    t.equal(refusal(changed(path, value)), `config.json: ${message}`);
  t.match(
    refusal(changed(['ociVersion'], '2.0.0')),
    /^config\.json: ociVersion: expected a version .*, got "2\.0\.0"$/,
  );
  t.equal(refusal('[]'), 'config.json: expected an object, got an empty array');
  t.equal(refusal('null'), 'config.json: expected an object, got null');
});

t.test('duplicate namespaces and rlimits are errors', async (t) => {
  const twice = sampleSpec();
  twice.linux?.namespaces?.push({ type: 'pid' });
  t.equal(
    refusal(JSON.stringify(twice)),
    'config.json: linux.namespaces[5].type: "pid" appears a second time',
  );
  const limits = sampleSpec();
  limits.process.rlimits?.push({ type: 'RLIMIT_CORE', soft: 0, hard: 0 });
  t.equal(
    refusal(JSON.stringify(limits)),
    'config.json: process.rlimits[2].type: "RLIMIT_CORE" appears a second time',
  );
});

t.test('unknown properties are ignored', async (t) => {
  const text = JSON.stringify({ ...sampleSpec(), windows: 5, future: { a: [null] }, __proto__x: 1 });
  t.equal(refusal(text), 'accepted');
});

t.test('what is not JSON is refused with line and column', async (t) => {
  t.match(refusal('{\n  "a": 1,\n  b\n}'), /^config\.json: not JSON: line 3, column 3: /);
  t.match(refusal('{"ociVersion": "1.0'), /^config\.json: not JSON: /);
  t.match(refusal(''), /^config\.json: not JSON: line 1, column 1: /);
  t.match(refusal('['.repeat(100_000)), /^config\.json: not JSON: /);
  t.notMatch(refusal('{"a": \u0007}'), /\n/);
});

t.test('a NUL is refused wherever it stands', async (t) => {
  t.equal(
    refusal(changed(['process', 'args', 2], 'a\0b')),
    'config.json: process.args[2]: contains a NUL character',
  );
  t.equal(refusal(changed(['hostname'], '\0')), 'config.json: hostname: contains a NUL character');
  t.match(refusal(changed(['annotations', 'a\0'], 'x')), /^config\.json: annotations: a name contains a NUL/);
  const deep = `{"x": ${'['.repeat(5000)}"\\u0000"${']'.repeat(5000)}, ${JSON.stringify(sampleSpec()).slice(1)}`;
  t.match(refusal(deep), /nested too deeply$/);
});

t.test('any value at any place is accepted or refused with the place named', async (t) => {
  const hostile: unknown[] = [
    null,
    true,
    -1,
    1.5,
    1e308,
    2 ** 64,
    '',
    'x',
    'a'.repeat(5000),
    [],
    [null],
    [[]],
    {},
    { path: 5 },
    { __proto__x: {} },
  ];
  const places: (string | number)[][] = [];
  const collect = (value: unknown, path: (string | number)[]): void => {
    if (path.length > 0) places.push(path);
    if (typeof value !== 'object' || value === null) return;
    for (const [name, item] of Object.entries(value))
      collect(item, [...path, Array.isArray(value) ? Number(name) : name]);
  };
  collect(sampleSpec(), []);
  let refused = 0;
  let unnamed = 0;
  for (const path of places) {
    for (const value of [...hostile, undefined]) {
      const message = refusal(changed(path, value));
      if (message === 'accepted') continue;
      refused++;
      const named = `config.json: ${String(path[0])}`;
      if (!message.startsWith(named) || message.length > 600 || message.includes('undefined')) unnamed++;
    }
  }
  t.equal(unnamed, 0, 'every refusal names its place, in bounds');
  t.ok(refused > places.length * 8, `${refused} of ${places.length * (hostile.length + 1)} refused`);
});

t.test('whole numbers beyond 2^53 keep their digits', async (t) => {
  const text = '{"a":18446744073709551615,"b":"18446744073709551615","c":9223372036854775807,"d":1}';
  const { value, digits } = parseExactJson(text);
  t.equal(stringifyExactJson(value, digits), text);
  t.same(parseExactJson('{"a":12345678901234567890.5}').digits.size, 0, 'fractions are no whole numbers');
  t.throws(() => parseExactJson('[18446744073709551615,18446744073709551614]'), /too close to be told apart/);
  const limits = changed(['process', 'rlimits', 0, 'hard'], 42).replace(
    '"hard":42',
    '"hard":18446744073709551615',
  );
  const loaded = parseSpec(limits);
  t.match(stringifyExactJson(loaded.spec, loaded.digits), '"hard":18446744073709551615');
});

t.test('a file that is not there or too large', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tsvmm-spec-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  t.throws(() => loadSpec(folder), { message: `${folder}/config.json: no such file or folder` });
  writeFileSync(join(folder, 'config.json'), Buffer.alloc(3 * 1024 * 1024 + 1, 0x20));
  t.throws(() => loadSpec(folder), { message: /config\.json: 3145729 bytes are too many/ });
  writeFileSync(join(folder, 'config.json'), Buffer.from([0xff, 0xfe, 0x00, 0x7b]));
  t.throws(() => loadSpec(folder), { message: /config\.json: not JSON/ });
});

t.test('the committed validator is what the schemas make', async (t) => {
  execFileSync(process.execPath, [join(packageRoot(), 'scripts/generate-validators.mjs'), '--check']);
  t.pass('scripts/generate-validators.mjs --check');
});
