// System calls that Node lacks. What changes the process itself is done in one of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { addon, packageRoot } from '../../../src/addon/index.js';

/** Runs `code` in a process that has the addon as `addon`. */
async function script(code: string): Promise<{ text: string; status: number | null }> {
  const path = process.env.TSVMM_ADDON ?? join(packageRoot(), 'build/Release/tsvmm.node');
  const child = spawn(process.execPath, ['-e', `const addon = require(${JSON.stringify(path)});${code}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (data) => {
    text += data;
  });
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { text, status };
}

t.test('spawn: descriptors, status, session, folder, errors', async () => {
  const { spawn: start, waitPid, pipe, memfd, close } = addon();
  const [read, write] = pipe() as [number, number];
  const code =
    'cat; pwd; echo $X; ls /proc/self/fd | wc -l; ps -o pid=,sid= $$; grep SigIgn /proc/self/status; exit 7';
  const input = memfd('input', 'from memory\n');
  const pid = start('/bin/sh', ['sh', '-c', code], ['X=y', 'PATH=/usr/bin:/bin'], {
    fds: [input, write, 2],
    setsid: true,
    cwd: '/usr',
  });
  assert.ok(pid > 0);
  closeSync(write);
  close(input);
  const text = readFileSync(read, 'utf8').split('\n');
  closeSync(read);
  assert.equal(waitPid(pid, false), 7);
  assert.equal(waitPid(pid, false), -10);
  assert.deepEqual(text.slice(0, 4), ['from memory', '/usr', 'y', '4']); // 0, 1, 2 and the folder that ls reads
  assert.deepEqual(text[4]!.trim().split(/ +/), [String(pid), String(pid)]);
  assert.match(text[5]!, /SigIgn:\s0{7}[01]80{7}$|SigIgn:\s0{16}$/); // glibc's posix_spawn ignores its own two
  assert.equal(start('/no/such', ['x'], [], { fds: [] }), -2);
  assert.equal(start('/etc/passwd', ['x'], [], { fds: [] }), -13);
  assert.equal(start('/bin/true', ['true'], [], { fds: [12345] }), -9);
});

t.test('spawn: nohang, signals', async () => {
  const { spawn: start, waitPid, kill } = addon();
  const pid = start('/bin/sleep', ['sleep', '1000'], [], { fds: [-1, -1, -1] });
  assert.equal(waitPid(pid, true), -11);
  assert.equal(kill(pid, 9), 0);
  assert.equal(waitPid(pid, false), 137);
  assert.equal(kill(pid, 9), -3);
});

t.test('execve: the same process, only the descriptors that were named', async () => {
  const code = `
    const inside = addon.memfd('inside', 'kept');
    console.error = () => {};
    const failed = addon.execve('/no/such', ['x'], [], [inside]);
    require('fs').writeSync(1, failed + ' ' + process.pid + '\\n');
    addon.execve('/bin/sh', ['sh', '-c', 'echo $$ $X; cat <&3; ls /proc/self/fd | tr "\\\\n" " "; exit 5'],
      ['X=y', 'PATH=/usr/bin:/bin'], [0, 1, 2, inside]);`;
  const { text, status } = await script(code);
  const [first, second] = text.split('\n');
  const pid = first!.split(' ')[1];
  assert.equal(first, `-2 ${pid}`);
  assert.equal(`${second}`, `${pid} y`);
  assert.match(text, /\nkept0 1 2 3 \d+ $/);
  assert.equal(status, 5);
});

t.test("netlink: links and routes, the kernel's errors", async () => {
  const { netlink } = addon();
  const RTM_GETLINK = 18;
  const request = Buffer.alloc(32);
  request.writeUInt32LE(32, 0);
  request.writeUInt16LE(RTM_GETLINK, 4);
  request.writeUInt16LE(0x300, 6); // NLM_F_DUMP
  const links = netlink(0, request);
  assert.ok(Array.isArray(links) && links.length >= 1);
  for (const link of links) assert.equal(Buffer.from(link).readUInt32LE(0), link.length);
  // One link that is not there.
  request.writeUInt16LE(0, 6);
  request.writeInt32LE(0x7ffffff0, 20);
  assert.equal(netlink(0, request), -19);
  assert.equal(netlink(0, request.subarray(0, 20)), -22);
});

t.test('enterView: the root is the view, the working folder the state folder', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsvmm-view-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  for (const name of ['rootfs/etc', 'rootfs/data', 'data', 'state'])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, 'rootfs/etc/hostname'), 'guest');
  writeFileSync(join(folder, 'data/file'), 'data');
  const view = {
    rootfs: join(folder, 'rootfs'),
    mounts: [{ source: join(folder, 'data'), destination: '/data', readOnly: true }],
    stateDirectory: join(folder, 'state'),
  };
  const { text } = await script(`
    const fs = require('fs');
    const result = addon.enterView(${JSON.stringify(view)});
    if (result !== 0) { console.log(JSON.stringify(result)); process.exit(); }
    fs.writeFileSync('state.tmp', 'state');
    fs.renameSync('state.tmp', 'state.json');
    const read = (path) => fs.readFileSync(path, 'utf8');
    let refused;
    try { fs.writeFileSync('/data/new', ''); } catch (error) { refused = error.code; }
    console.log(read('/etc/hostname'), read('/data/file'), refused, fs.existsSync('/usr'));
  `);
  if (process.getuid?.() === 0) {
    assert.equal(text, 'guest data EROFS false\n');
    assert.equal(readFileSync(join(folder, 'state/state.json'), 'utf8'), 'state');
  } else {
    assert.deepEqual(JSON.parse(text), { error: -1, step: 'unshare a mount namespace' });
  }
});
