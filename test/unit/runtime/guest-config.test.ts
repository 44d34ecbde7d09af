import t from 'tap';
import { guestConfig } from '../../../src/runtime/guest-config.js';
import type { Spec } from '../../../src/runtime/spec/types.js';
import { sampleSpec } from '../../support/spec.js';

function with_(change: (spec: Spec) => void): Spec {
  const spec = sampleSpec();
  change(spec);
  return spec;
}

t.test('what means the same in a machine is kept', async (t) => {
  const spec = sampleSpec();
  const { spec: guest, warnings } = guestConfig(spec, 'demo', '/');
  t.same(warnings, []);
  t.same(guest.process, spec.process);
  t.same(guest.mounts, spec.mounts);
  t.same(guest.linux?.namespaces, spec.linux?.namespaces);
  t.same(guest.linux?.seccomp, spec.linux?.seccomp);
  t.same(guest.linux?.uidMappings, spec.linux?.uidMappings);
  t.equal(guest.root.path, 'rootfs');
  t.equal(guest.root.readonly, true);
  t.equal(guest.hostname, 'sample');
  t.equal(guest.linux?.cgroupsPath, '/demo', 'the host has other cgroups');
  t.same(guest.linux?.resources?.memory, spec.linux?.resources?.memory);
  t.same(
    guest.linux?.resources?.cpu,
    { shares: 1024, quota: 150_000, period: 100_000 },
    'cpus and mems are sizes',
  );
  t.equal(guest.vm, undefined);
  t.equal(guest.hooks, undefined);
  t.same(spec, sampleSpec(), 'the original is left alone');
});

t.test('what cannot work is refused by name', async (t) => {
  const cases: [(spec: Spec) => void, RegExp][] = [
    [
      (s) => s.linux?.namespaces?.splice(0, 1, { type: 'pid', path: '/proc/1/ns/pid' }),
      /linux\.namespaces\[0\]\.path: the pid namespace \/proc\/1\/ns\/pid is the host's/,
    ],
    [
      (s) => s.linux?.devices?.push({ type: 'b', path: '/dev/sda', major: 8, minor: 0 }),
      /linux\.devices\[1\]: \/dev\/sda \(b 8:0\) is a device of the host/,
    ],
    [(s) => Object.assign(s.linux ?? {}, { netDevices: { eth0: {} } }), /linux\.netDevices/],
    [
      (s) =>
        Object.assign(s.linux?.seccomp ?? {}, { listenerPath: '/run/s', defaultAction: 'SCMP_ACT_NOTIFY' }),
      /linux\.seccomp\.listenerPath/,
    ],
    [(s) => Object.assign(s.linux ?? {}, { intelRdt: { closID: 'a' } }), /linux\.intelRdt/],
    [(s) => Object.assign(s.vm?.hwConfig ?? {}, { irqs: [5] }), /vm\.hwConfig\.irqs/],
    [
      (s) =>
        Object.assign(s.linux?.resources?.blockIO ?? {}, {
          throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1 }],
        }),
      /linux\.resources\.blockIO\.throttleReadBpsDevice/,
    ],
  ];
  for (const [change, message] of cases)
    t.throws(() => guestConfig(with_(change), 'x', '/'), { name: 'UserError', message });
});

t.test('what has no effect in a machine is left out, with a warning', async (t) => {
  const { spec, warnings } = guestConfig(
    with_((s) => {
      s.process.apparmorProfile = 'docker-default';
      s.process.selinuxLabel = 'system_u:system_r:svirt_t:s0';
      s.process.scheduler = { policy: 'SCHED_BATCH' };
      Object.assign(s.linux ?? {}, { mountLabel: 'x', memoryPolicy: { mode: 'MPOL_BIND' } });
      s.process.capabilities?.bounding?.push('CAP_FUTURE');
    }),
    'x',
    '/',
  );
  t.equal(warnings.length, 6);
  for (const name of [
    'apparmorProfile',
    'selinuxLabel',
    'scheduler',
    'mountLabel',
    'memoryPolicy',
    'CAP_FUTURE',
  ]) {
    t.ok(
      warnings.some((warning) => warning.includes(name)),
      name,
    );
  }
  t.equal(spec.process.apparmorProfile, undefined);
  t.equal(spec.process.scheduler, undefined);
  t.same(spec.process.capabilities?.bounding, ['CAP_AUDIT_WRITE', 'CAP_KILL']);
});
