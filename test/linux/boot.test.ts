import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';
import { outcome, start, TSVMM, tsvmm, waitFor } from '../support/tsvmm.js';

const { kernel } = guestFiles({});
const boot = (initrd: string, ...options: string[]) => [
  'boot',
  kernel,
  '--initrd',
  initrd,
  '--append',
  'quiet',
  ...options,
];

t.test('a guest that powers off, with what it was given', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'a.img'), `first disk${' '.repeat(1024 * 1024 - 10)}`);
  writeFileSync(join(folder, 'b.img'), `second disk${' '.repeat(1024 * 1024 - 11)}`);
  mkdirSync(join(folder, 'share'));
  writeFileSync(join(folder, 'share/file'), 'from the share\n');
  const initrd = makeInitramfs(
    t,
    `
    echo "cpus: $(nproc)"
    echo "memory: $(awk '/MemTotal/ {print $2}' /proc/meminfo)"
    echo "append: $(grep -o 'word=[a-z]*' /proc/cmdline)"
    echo "a: $(head -c 10 /dev/vda) $(cat /sys/block/vda/ro)"
    echo "b: $(head -c 11 /dev/vdb) $(cat /sys/block/vdb/ro)"
    printf 'written' | dd of=/dev/vda bs=512 seek=1 conv=notrunc,fsync 2>/dev/null
    mount -t virtiofs data /mnt && cat /mnt/file
    echo from the guest > /mnt/new && umount /mnt
    mount -t virtiofs more /mnt && { echo x > /mnt/new; } 2>/dev/null || echo "more: read-only"
    [ -c /dev/hwrng ] && echo "rng: $(head -c 16 /dev/hwrng | wc -c)"
    poweroff -f
    `,
  );
  const timeline = join(folder, 'timeline.json');
  const { status, stdout, stderr } = await tsvmm([
    'boot',
    ...[kernel, '--initrd', initrd, '--append', 'quiet word=spoken', '--memory', '192M', '--cpus=2', '--rng'],
    ...['--deadline', '240'],
    ...['--disk', join(folder, 'a.img'), '--disk', `${join(folder, 'b.img')},ro`],
    ...['--share', `data=${folder}/share`, '--share', `more=${folder},ro`, '--timeline', timeline],
  ]);
  t.equal(stderr, '');
  t.equal(status, 0);
  t.match(stdout, /cpus: 2\r\n/);
  const memory = Number(/memory: (\d+)/.exec(stdout)?.[1]);
  t.ok(memory > 128 * 1024 && memory <= 192 * 1024, `${memory} KiB of 192 MiB`);
  t.match(stdout, 'append: word=spoken');
  t.match(stdout, 'a: first disk 0');
  t.match(stdout, 'b: second disk 1');
  t.match(stdout, 'from the share');
  t.match(stdout, 'more: read-only');
  t.match(stdout, 'rng: 16');
  t.equal(readFileSync(join(folder, 'a.img')).toString('latin1', 512, 519), 'written');
  t.equal(readFileSync(join(folder, 'share/new'), 'utf8'), 'from the guest\n');
  const { phases } = JSON.parse(readFileSync(timeline, 'utf8')) as { phases: { name: string; at: number }[] };
  const names = phases.map(({ name }) => name);
  for (const name of [
    'node',
    'addon',
    'kernel',
    'memory',
    'vm',
    'devices',
    'vcpus',
    'first-instruction',
    'end',
  ]) {
    t.ok(names.includes(name), `the phase ${name}`);
  }
  t.same(
    phases.map(({ at }) => at),
    phases.map(({ at }) => at).sort((a, b) => a - b),
  );
});

t.test('each way in which a guest ends has its status', async (t) => {
  const reset = await tsvmm(boot(makeInitramfs(t, 'reboot -f')));
  t.same([reset.status, reset.stderr], [0, '']);

  const panic = await tsvmm(boot(makeInitramfs(t, 'exit 3')));
  t.equal(panic.status, 101);
  t.match(panic.stderr, /^tsvmm: the guest panicked: .*Attempted to kill init/m);
  t.match(panic.stdout, 'Kernel panic - not syncing');

  const triple = await tsvmm([
    'boot',
    kernel,
    '--initrd',
    makeInitramfs(t, 'reboot -f'),
    '--append',
    'quiet reboot=triple,force',
  ]);
  t.equal(triple.status, 102);
  t.match(triple.stderr, /^tsvmm: the guest failed: vCPU 0: triple fault; rip=0x[0-9a-f]+ rsp=/);

  const late = await tsvmm(boot(makeInitramfs(t, 'echo waiting; sleep 1000'), '--deadline', '20'));
  t.equal(late.status, 104);
  t.equal(late.stderr, 'tsvmm: the machine did not end within 20 seconds\n');
  t.match(late.stdout, 'waiting');
});

t.test('the console is standard input and output', async (t) => {
  const initrd = makeInitramfs(t, 'stty -echo; echo ready; read -r line; echo "line: $line"; poweroff -f');
  const child = start(boot(initrd));
  const ended = outcome(child);
  await waitFor(child.stdout, 'ready');
  child.stdin?.write('typed here\n');
  const { status, stdout } = await ended;
  t.equal(status, 0);
  t.match(stdout, 'line: typed here\r\n');
});

t.test("on a terminal the keys are the guest's, but for Ctrl-]", async (t) => {
  const initrd = makeInitramfs(
    t,
    'stty -echo raw; echo ready; head -c 3 | hexdump -C; echo go on; sleep 1000',
  );
  const pty = join(packageRoot(), 'test/support/on-terminal.py');
  const child = spawn('python3', [pty, '24', '80', process.execPath, TSVMM, ...boot(initrd)]);
  const ended = outcome(child);
  await waitFor(child.stdout, 'ready');
  const passed = waitFor(child.stdout, 'go on');
  child.stdin?.write('\u0003\u001a\u001c');
  await passed;
  child.stdin?.write('\u001d');
  const { status, stdout, stderr } = await ended;
  t.equal(status, 0);
  t.match(stdout, '03 1a 1c');
  t.equal(stderr, 'terminal: as before\n');
});

t.test('the decompressor inside the image', async (t) => {
  const { status, stdout } = await tsvmm(
    boot(makeInitramfs(t, 'echo up; poweroff -f'), '--decompress', 'guest'),
  );
  t.equal(status, 0);
  t.match(stdout, 'up');
});

t.test('a signal ends the machine', async (t) => {
  const child = start(boot(makeInitramfs(t, 'echo ready; sleep 1000')));
  const ended = outcome(child);
  await waitFor(child.stdout, 'ready');
  child.kill('SIGTERM');
  t.equal((await ended).status, 143);
});
