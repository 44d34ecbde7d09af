import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { makeBundle } from '../support/bundle.js';
import { GID, OrdinaryUser, SUBID, UID } from '../support/ordinary-user.js';

t.test('rootless podman', async (t) => {
  const user = await OrdinaryUser.open(t);
  const podman = (...args: readonly string[]) => user.run(['podman', ...args]);
  await t.test('is configured', async (t) => {
    const bundle = makeBundle(t, 'true');
    const archive = join(bundle, 'image.tar');
    execFileSync('tar', ['-C', join(bundle, 'rootfs'), '-cf', archive, '.']);
    user.own(bundle);
    const folder = '$HOME/.config/containers';
    const made = await user.run([...['sh', '-ec', `mkdir -p ${folder}; cat >${folder}/containers.conf`]], {
      input: `
[engine]
runtime = "tsvmm"
cgroup_manager = "cgroupfs"
events_logger = "file"
network_cmd_options = ["allow_host_loopback=true"]
[engine.runtimes]
tsvmm = ["/opt/runtime"]
`,
    });
    t.equal(made.stderr, '');
    await user.run(['sh', '-ec', `printf '[storage]\\ndriver = "vfs"\\n' >${folder}/storage.conf`]);
    const imported = await podman('import', '--quiet', archive, 'box');
    t.equal(imported.status, 0, imported.stderr);
  });
  await user.serve(8000, 'from the host');

  await t.test('run: a volume, users and the network', async (t) => {
    const { status, stdout, stderr } = await podman(
      ...['run', '--rm', '--volume', 'data:/data', 'box', 'sh', '-c'],
      `id -u
      echo root >/data/root; echo user >/data/user; chown 1000:1000 /data/user; chmod 777 /data
      chown 70000 /data/user 2>&1
      wget -q -O - http://10.0.2.2:8000/`,
    );
    t.same(stdout.trimEnd().split('\n'), ['0', 'chown: /data/user: Invalid argument', 'from the host']);
    t.equal(status, 0, stderr);
    const other = await podman(
      ...[
        'run',
        '--rm',
        '--volume',
        'data:/data',
        '--user',
        '1000:1000',
        '--network',
        'none',
        'box',
        'sh',
        '-c',
      ],
      'id -u; id -g; touch /data/own; echo x 2>/dev/null >/data/root || echo refused; exit 9',
    );
    t.same([other.status, other.stdout], [9, '1000\n1000\nrefused\n'], other.stderr);
    const { stdout: mount } = await podman('volume', 'inspect', '--format', '{{.Mountpoint}}', 'data');
    const owners = await user.root(`cd ${mount.trim()} && stat -c '%n %u:%g' *`);
    t.same(owners.split('\n'), [
      `own ${SUBID + 999}:${SUBID + 999}`,
      `root ${UID}:${GID}`,
      `user ${SUBID + 999}:${SUBID + 999}`,
    ]);
  });

  await t.test('a detached one: exec, a published port, stop', async (t) => {
    const script = 'httpd -p 80 -h /www; trap "exit 7" TERM; while :; do sleep 1 & wait; done';
    const run = await podman(
      ...['run', '-d', '--name', 'web', '-p', '127.0.0.1:8080:80', 'box', 'sh', '-c'],
      `mkdir /www; echo served >/www/index.html; ${script}`,
    );
    t.equal(run.status, 0, run.stderr);
    const exec = await user.run(['podman', 'exec', '-i', 'web', 'sh', '-c', 'cat; exit 3'], {
      input: 'through\n',
    });
    t.same([exec.status, exec.stdout], [3, 'through\n'], exec.stderr);
    const answer = await user.run([
      'curl',
      '-sS',
      '--retry',
      '20',
      '--retry-all-errors',
      'http://127.0.0.1:8080/',
    ]);
    t.equal(answer.stdout, 'served\n', answer.stderr);
    const copied = await user.run(['sh', '-c', 'podman cp web:/www/index.html copied && cat copied']);
    t.equal(copied.stdout, 'served\n', copied.stderr);
    t.equal((await podman('stop', 'web')).status, 0);
    const { stdout } = await podman('inspect', '--format', '{{.State.Status}} {{.State.ExitCode}}', 'web');
    t.equal(stdout, 'exited 7\n');
    t.equal((await podman('rm', 'web')).status, 0);
  });

  await t.test('nothing is left', async (t) => {
    t.equal(await user.root(`ls -A /run/user/${UID}/tsvmm`), 'lock');
    // The pause process of podman's own, which keeps the user namespace.
    t.same(
      (await user.processes()).filter((line) => !line.includes('catatonit')),
      [],
    );
  });
});
