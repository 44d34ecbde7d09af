import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { sampleSpec } from '../../support/spec.js';
import { tsvmm } from '../../support/tsvmm.js';

const folder = mkdtempSync(join(tmpdir(), 'tsvmm-commands-'));
t.teardown(() => rmSync(folder, { recursive: true }));

/** Runs the command; every failure is one line and a status: 125 of those that also end with another's. */
async function failure(t: Test, args: string[], line: RegExp, expected = 125): Promise<void> {
  const { status, stdout, stderr } = await tsvmm(args, '', {
    env: { ...process.env, TSVMM_KERNEL: '', TSVMM_INITRD: '' },
  });
  t.same({ status, stdout }, { status: expected, stdout: '' }, args.join(' '));
  t.match(stderr, line);
  t.match(stderr, /^tsvmm: .*\n$/, 'one line');
}

t.test('usage', async (t) => {
  for (const args of [
    ['--help'],
    ['run', '--help'],
    ['boot', '-h'],
    ['doctor', '--help'],
    ['initramfs', '--help'],
  ]) {
    const { status, stdout, stderr } = await tsvmm(args);
    t.same({ status, stderr }, { status: 0, stderr: '' }, args.join(' '));
    t.match(stdout, /^usage: tsvmm /);
    t.ok(stdout.split('\n').every((line) => line.length <= 120));
  }
  t.match(
    (await tsvmm(['--version'])).stdout,
    /^tsvmm version \d+\.\d+\.\d+\ncommit: v.*\nspec: 1\.3\.0\nnode: v\d+/,
  );
  t.match((await tsvmm(['--root', '/x', 'help', 'boot'])).stdout, /^usage: tsvmm boot/);
  t.match((await tsvmm(['--help', 'run'])).stdout, /^usage: tsvmm run/);
  await failure(t, [], /no command is given; see tsvmm --help/, 1);
  await failure(t, ['rum'], /unknown command rum: did you mean run\?/, 1);
  await failure(t, ['foo', '-h'], /No help topic for 'foo'/, 1);
  await failure(t, ['--systemd-cgroup', 'rum'], /unknown command rum: did you mean run\?/, 1);
  await failure(t, ['--verison'], /unknown option --verison: did you mean --version\?/, 1);
  await failure(t, ['--rooot', '/x', 'run'], /unknown option --rooot: did you mean --root\?/, 1);
  await failure(t, ['--root'], /--root: its value is missing/, 1);
  await failure(t, ['--log-format', 'xml', 'run'], /--log-format: expected text or json, got "xml"/);
  await failure(t, ['--log', '/no/such/log', 'run'], /--log: \/no\/such\/log: no such file or folder/);
  await failure(t, ['--rootless=maybe', 'run'], /--rootless: expected true or false, got "maybe"/);
  await failure(t, ['checkpoint', '--image-path', 'x', 'id'], /checkpoint and restore are to come/, 1);
  await failure(t, ['restore', 'id'], /checkpoint and restore are to come/, 1);
  await failure(t, ['boot'], /the kernel is missing/);
  await failure(t, ['boot', 'a', 'b'], /there is one kernel only/);
  await failure(t, ['boot', '--kernle', 'a'], /unknown option --kernle/);
  await failure(t, ['boot', '/dev/null', '--cpus', '0'], /--cpus: expected a whole number from 1 to 254/);
  await failure(t, ['boot', '/dev/null', '--memory', '12Q'], /--memory: expected a size/);
  await failure(t, ['boot', '/dev/null', '--disk', ',ro'], /--disk: expected FILE or FILE,OPTION/);
  await failure(t, ['boot', '/dev/null', '--share', 'x'], /--share: expected TAG=DIR/);
  await failure(t, ['boot', '/dev/null', '--balloon=much'], /--balloon: expected a size/);
  await failure(t, ['boot', '/dev/null', '--balloon=5000'], /--balloon: 5000 bytes are no multiple of 4096/);
  await failure(
    t,
    ['boot', '/dev/null', '--balloon=1G'],
    /--balloon: 1073741824 bytes are more than the guest/,
  );
  await failure(t, ['boot', '/dev/null', '--net', 'tap='], /--net: expected tap=NAME/);
  await failure(t, ['boot', '/dev/null', '--net', 'bridge=x'], /--net: expected tap=NAME.*got "bridge=x"/);
  await failure(
    t,
    ['boot', '/dev/null', '--net', 'tap=a,mtu=9'],
    /--net: mtu: expected a whole number from 68/,
  );
  await failure(t, ['boot', '/dev/null', '--net', 'tap=a,x'], /--net: expected tap=NAME.*got "x"/);
  await failure(t, ['boot', '/dev/null', '--decompress', 'never'], /--decompress: expected host or guest/);
  await failure(t, ['boot', '/dev/null', '--deadline', '0'], /--deadline: expected seconds/);
  await failure(t, ['run', '--pid-fiel', 'x'], /unknown option --pid-fiel: did you mean --pid-file\?/);
  await failure(
    t,
    ['run', '--network', 'tap', '/none'],
    /--network: expected auto, passt or none, got "tap"/,
  );
  await failure(t, ['doctor', 'x'], /unexpected argument x/);
});

t.test('the log', async (t) => {
  const log = join(folder, 'log');
  await failure(
    t,
    ['--log', log, '--log-format=json', 'run', '/none'],
    /^tsvmm: bundle \/none: no such file/,
  );
  await failure(t, ['--log', log, '--log-format', 'text', 'rum'], /^tsvmm: unknown command rum/, 1);
  const [json = '', text = '', rest] = readFileSync(log, 'utf8').split('\n');
  t.match(JSON.parse(json), {
    level: 'error',
    msg: 'bundle /none: no such file or folder',
    time: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/,
  });
  t.match(
    text,
    /^time="[-0-9T:]+Z" level=error msg="unknown command rum: did you mean run\?; see tsvmm --help"$/,
  );
  t.equal(rest, '');
  await failure(t, ['--log', log, '--debug', 'run', '/none'], /^tsvmm: bundle/);
  t.match(readFileSync(log, 'utf8'), /level=debug msg="tsvmm --log/);
  const { status, stderr } = await tsvmm(['--log-format', 'json', 'checkpoint', 'x']);
  t.equal(status, 1);
  t.match(JSON.parse(stderr), { level: 'error', msg: /to come/ }, 'without a file: to standard error');
});

t.test('kernels and machines that cannot be', async (t) => {
  const text = join(folder, 'text');
  writeFileSync(text, 'no kernel at all\n'.repeat(1000));
  await failure(t, ['boot', join(folder, 'none')], /none: .*(no such file|does not exist)/i);
  await failure(t, ['boot', folder], /tsvmm-commands-/);
  await failure(t, ['boot', text], /text: /);
  await failure(t, ['boot', '/bin/ls'], /\/bin\/ls: a program that wants an interpreter/);
  await failure(t, ['boot', '/dev/null'], /\/dev\/null/);
  await failure(
    t,
    ['boot', '--memory', '1M', text],
    /memory: expected a multiple of 4096 bytes between 16 MiB/,
  );
});

t.test('a cache that cannot be written costs nothing but time', async (t) => {
  const { status, stderr } = await tsvmm(['boot', '/dev/null'], '', {
    env: { ...process.env, XDG_CACHE_HOME: '/dev/full' },
  });
  t.equal(status, 125);
  t.match(stderr, /^tsvmm: .*\/dev\/null.*\n$/, 'one line, about the kernel');
});

t.test('bundles that are none', async (t) => {
  const bundle = join(folder, 'bundle');
  mkdirSync(join(bundle, 'rootfs'), { recursive: true });
  const config = join(bundle, 'config.json');
  await failure(
    t,
    ['run', join(folder, 'no/bundle')],
    /^tsvmm: bundle .*\/no\/bundle: no such file or folder/,
  );
  await failure(t, ['run', '--bundle', bundle], /bundle\/config\.json: no such file or folder/);
  writeFileSync(config, '{"ociVersion": "1.0.2",\n}');
  await failure(t, ['run', bundle], /bundle\/config\.json: not JSON: line 2, column 1/);
  const spec = sampleSpec();
  spec.process.args = [];
  writeFileSync(config, JSON.stringify(spec));
  await failure(
    t,
    ['run', bundle],
    /config\.json: process\.args: expected an array of strings, at least one, got an empty array/,
  );
  const bind = sampleSpec();
  bind.mounts?.push({ destination: '/data', type: 'bind', source: '/no/such/folder' });
  writeFileSync(config, JSON.stringify(bind));
  await failure(t, ['run', bundle], /config\.json: mounts\[4\]: .*\/no\/such\/folder/);
  const noRoot = sampleSpec();
  noRoot.root.path = 'elsewhere';
  writeFileSync(config, JSON.stringify(noRoot));
  await failure(t, ['run', bundle], /config\.json: root\.path: .*\/elsewhere: no such file or folder/);
  writeFileSync(config, JSON.stringify(sampleSpec()));
  await failure(t, ['run', bundle, 'a/b'], /container ID "a\/b": expected letters/);
  await failure(t, ['run', '--kernel', '/no/kernel', '--initrd', '/no/initrd', bundle], /\/no\/kernel/);
  await failure(t, ['run', '--memory', '1M', bundle], /--memory: 1048576 bytes are too few/);
  await failure(t, ['run', '--boot-timeout', 'soon', bundle], /--boot-timeout: expected seconds/);
});

t.test('TSVMM_DEBUG adds the stack', async (t) => {
  const { stderr } = await tsvmm(['run', '/none'], '', { env: { ...process.env, TSVMM_DEBUG: '1' } });
  t.match(stderr, /^tsvmm: bundle \/none: no such file or folder\n/);
  t.match(stderr, /\n +at /);
});

t.test('doctor', async (t) => {
  const { status, stdout, stderr } = await tsvmm(['doctor', '--json']);
  t.equal(stderr, '');
  const report = JSON.parse(stdout) as {
    ok: boolean;
    findings: { name: string; state: string; remedy?: string }[];
  };
  t.equal(status, report.ok ? 0 : 1);
  t.equal(
    report.ok,
    report.findings.every(({ state }) => state !== 'missing'),
  );
  const text = await tsvmm(['doctor']);
  t.equal(text.status, status);
  for (const { name, remedy } of report.findings) {
    t.match(text.stdout, name);
    if (remedy !== undefined) t.match(text.stdout, remedy.slice(0, 20));
  }
});
