import t from 'tap';
import { type ProcessChanges, parseProcess, processFrom } from '../../../src/runtime/exec-process.js';
import { sampleSpec } from '../../support/spec.js';

const own = sampleSpec().process;
const changed = (changes: Partial<ProcessChanges> = {}) =>
  processFrom(JSON.stringify(sampleSpec()), { args: ['ls'], terminal: false, ...changes }).process;

t.test("the container's own process, but for its command line", async (t) => {
  const { consoleSize: _size, ...kept } = own;
  t.same(changed(), { ...kept, args: ['ls'], terminal: false });
  const config = JSON.stringify(sampleSpec()).replace('9007199254740991', '18446744073709551615');
  t.same(
    [...processFrom(config, { args: ['ls'], terminal: false }).digits.values()],
    ['18446744073709551615'],
  );
});

t.test('what options change', async (t) => {
  t.same(changed({ cwd: '/tmp', env: ['A=1', 'PATH=/x'], terminal: true, noNewPrivileges: false }), {
    ...changed(),
    cwd: '/tmp',
    env: ['PATH=/bin', 'TERM=xterm', 'A=1', 'PATH=/x'],
    terminal: true,
    noNewPrivileges: false,
  });
  t.same(changed({ user: '7' }).user, { ...own.user, uid: 7 }, 'the group stays, as with runc');
  t.same(changed({ user: '7:8', additionalGids: ['9', '10,11'] }).user, {
    uid: 7,
    gid: 8,
    umask: 18,
    additionalGids: [5, 6, 9, 10, 11],
  });
  t.same(changed({ capabilities: ['CAP_CHOWN', 'kill'] }).capabilities, {
    bounding: ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_CHOWN'],
    effective: ['CAP_KILL', 'CAP_CHOWN'],
    inheritable: [],
    permitted: ['CAP_KILL', 'CAP_CHOWN'],
    ambient: ['CAP_KILL', 'CAP_CHOWN'],
  });
  const warnings: string[] = [];
  const unknown = { args: ['ls'], terminal: false, capabilities: ['CAP_FLY'] };
  const { process } = processFrom(JSON.stringify(sampleSpec()), unknown, (message) => warnings.push(message));
  t.same(process.capabilities, own.capabilities);
  t.same(warnings, ['--cap: there is no capability CAP_FLY']);
  t.match(changed({ apparmorProfile: 'a', selinuxLabel: 's' }), { apparmorProfile: 'a', selinuxLabel: 's' });
  for (const user of ['', '1:2:3', '-1', 'root', '1:', '4294967295', '1e3']) {
    if (user === '') t.same(changed({ user }).user, own.user);
    else t.throws(() => changed({ user }), /--user: expected/, user);
  }
});

t.test('a process of a file', async (t) => {
  t.same(parseProcess('{"cwd":"/","args":["a"]}', 'p.json').process, { cwd: '/', args: ['a'] });
  const cases: [string, RegExp][] = [
    ['', /^p\.json: not JSON/],
    ['[]', /^p\.json: process: expected /],
    ['{"args":["a"]}', /^p\.json: process\.cwd: expected an absolute path, it is missing/],
    ['{"cwd":"x","args":["a"]}', /^p\.json: process\.cwd: expected an absolute path, got "x"/],
    ['{"cwd":"/","args":["a\\u0000"]}', /^p\.json: process\.args\[0\]: contains a NUL character/],
  ];
  for (const [text, message] of cases) {
    t.throws(() => parseProcess(text, 'p.json'), { name: 'UserError', message }, text);
  }
});
