import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Spec } from '../../src/runtime/spec/types.js';
import { makeBundle } from '../support/bundle.js';
import { GATEWAY, GID, OrdinaryUser, SUBID, UID } from '../support/ordinary-user.js';

/** A bundle of the user's with a folder `data` that is mounted on /data, in which there is a file of root's. */
function userBundle(
  t: Test,
  user: OrdinaryUser,
  script: string,
  change: (spec: Spec) => void = () => {},
): string {
  const bundle = makeBundle(t, script, (spec, folder) => {
    mkdirSync(join(folder, 'data'));
    spec.mounts?.push({ destination: '/data', source: 'data', options: ['bind'] });
    change(spec);
  });
  user.own(bundle);
  const foreign = join(bundle, 'data/foreign');
  writeFileSync(foreign, 'secret');
  chmodSync(foreign, 0o600);
  return bundle;
}

function owner(path: string): string {
  const { uid, gid } = statSync(path);
  return `${uid}:${gid}`;
}

const MAKE = `
  id -u
  echo made >/data/file && mkdir /data/folder && ln -s x /root/link
  stat -c '%u:%g' / /data /data/file /data/foreign
  chown 0:0 /data/file && chown 5 /data/file 2>&1
  chmod 644 /data/foreign 2>&1
  cat /data/foreign 2>&1
`;

const MADE = [
  '0',
  '0:0',
  '0:0',
  '0:0',
  '65534:65534',
  'chown: /data/file: Invalid argument',
  'chmod: /data/foreign: Operation not permitted',
  "cat: can't open '/data/foreign': Permission denied",
];

function checkMade(t: Test, bundle: string): void {
  for (const name of ['data/file', 'data/folder']) t.equal(owner(join(bundle, name)), `${UID}:${GID}`, name);
  t.equal(readFileSync(join(bundle, 'data/file'), 'utf8'), 'made\n');
  t.equal(owner(join(bundle, 'data/foreign')), '0:0');
  t.equal(statSync(join(bundle, 'data/foreign')).mode & 0o777, 0o600);
}

t.test('tsvmm run of an ordinary user', async (t) => {
  const user = await OrdinaryUser.open(t);
  await user.serve(8000, 'from the host');

  await t.test("his files are the root's of the guest, on a network by passt", async (t) => {
    const bundle = userBundle(
      t,
      user,
      `${MAKE}
      wget -q -O - http://${GATEWAY}:8000/`,
      ({ linux }) => {
        if (linux?.namespaces !== undefined) {
          linux.namespaces = linux.namespaces.filter(({ type }) => type !== 'network');
        }
      },
    );
    const { status, stdout, stderr } = await user.tsvmm(['run', bundle, 'plain']);
    t.equal(stderr, '');
    t.same(stdout.trimEnd().split('\n'), [...MADE, 'from the host']);
    t.equal(status, 0);
    checkMade(t, bundle);
  });

  await t.test('with the maps of a rootless bundle, ids are mapped once', async (t) => {
    const bundle = userBundle(
      t,
      user,
      `${MAKE}
      cat /proc/self/uid_map | tr -s ' '
      ls /sys/class/net | tr '\\n' ' '`,
      ({ linux }) => {
        linux?.namespaces?.push({ type: 'user' });
        Object.assign(linux ?? {}, {
          uidMappings: [{ containerID: 0, hostID: UID, size: 1 }],
          gidMappings: [{ containerID: 0, hostID: GID, size: 1 }],
        });
      },
    );
    const { status, stdout, stderr } = await user.tsvmm(['run', bundle, 'mapped']);
    t.equal(stderr, '');
    t.same(stdout.trimEnd().split('\n'), [...MADE, ' 0 0 4294967295', 'lo']);
    t.equal(status, 0);
    checkMade(t, bundle);
  });

  await t.test('in a user namespace with subordinate ids everybody can own files', async (t) => {
    const bundle = userBundle(
      t,
      user,
      `
      echo made >/data/file
      chown 5:6 /data/file && stat -c '%u:%g' /data/file /data/foreign
      chmod 0 /data/file && cat /data/file
      su user -c 'touch /tmp/own && stat -c %u /tmp/own'`,
      (spec) => {
        spec.process.noNewPrivileges = false;
        spec.mounts?.push({ destination: '/tmp', source: 'data', options: ['bind'] });
      },
    );
    await user.root(`chmod 777 ${bundle}/data`);
    const { status, stdout, stderr } = await user.run([
      ...['unshare', '--map-root-user', '--map-auto', '/opt/runtime', 'run', bundle, 'auto'],
    ]);
    t.equal(stderr, '');
    t.same(stdout.trimEnd().split('\n'), ['5:6', '65534:65534', 'made', '1000']);
    t.equal(status, 0);
    t.equal(owner(join(bundle, 'data/file')), `${SUBID + 4}:${SUBID + 5}`);
    t.equal(owner(join(bundle, 'data/own')), `${SUBID + 999}:${SUBID + 999}`);
  });

  await t.test('a container with commands of their own: create, start, exec, kill, delete', async (t) => {
    const bundle = userBundle(t, user, 'sleep 1000 & wait');
    const commands = [
      ['create', '--bundle', bundle, 'long'],
      ['start', 'long'],
      ['exec', 'long', 'sh', '-c', 'echo in >/data/exec; exit 7'],
      ['list', '-q'],
      ['kill', 'long', 'KILL'],
    ];
    const outcomes = [];
    // `create` leaves its standard streams to the container.
    for (const args of commands) {
      outcomes.push(
        await user.run([
          'sh',
          '-c',
          '"$@" >out 2>&1; status=$?; cat out; exit $status',
          'sh',
          '/opt/runtime',
          ...args,
        ]),
      );
    }
    t.same(
      outcomes.map(({ status, stdout }) => [status, stdout]),
      [
        [0, ''],
        [0, ''],
        [7, ''],
        [0, 'long\n'],
        [0, ''],
      ],
    );
    t.equal(owner(join(bundle, 'data/exec')), `${UID}:${GID}`);
    const deleted = await user.tsvmm(['delete', '--force', 'long']);
    t.same(deleted, { status: 0, stdout: '', stderr: '' });
  });

  await t.test('without rights to /dev/kvm the message says what to do', async (t) => {
    const bundle = userBundle(t, user, 'true');
    const { status, stderr } = await user.tsvmm(['run', bundle], { mayUseKvm: false });
    t.equal(status, 125);
    t.match(stderr, /^tsvmm: .*EACCES: no rights to \/dev\/kvm: join the group kvm/);
    const doctor = await user.tsvmm(['doctor'], { mayUseKvm: false });
    t.equal(doctor.status, 1);
    t.match(doctor.stdout, /MISSING\s+rights to \/dev\/kvm: this user may not open it/);
  });

  await t.test('nothing is left', async (t) => {
    t.equal(await user.root(`ls -A /run/user/${UID}/tsvmm`), 'lock');
    t.same(await user.processes(), []);
  });
});
