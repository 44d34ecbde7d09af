import t from 'tap';
import { resolveSettings, type SettingFlags } from '../../../src/runtime/config/settings.js';
import {
  countCpus,
  DEFAULT_MEMORY,
  GUEST_OVERHEAD,
  type Host,
  sizeMachine,
  thisHost,
} from '../../../src/runtime/sizing.js';
import type { Spec } from '../../../src/runtime/spec/types.js';

/** The machine that the bundle and the command line ask for. */
const machineSize = (spec: Spec, flags: SettingFlags, host: Host) =>
  sizeMachine(spec, resolveSettings({ flags, spec, env: {}, file: { path: '', settings: {} } }), host);

const HOST = { memory: 8 * 2 ** 30, cpus: 4 };
const MIB = 1 << 20;

function spec(parts: Partial<Spec>): Spec {
  return { ociVersion: '1.3.0', root: { path: 'r' }, process: { cwd: '/', args: ['a'] }, ...parts };
}

const limited = (memory: number): Spec => spec({ linux: { resources: { memory: { limit: memory } } } });
const cpus = (cpu: Record<string, unknown>): Spec => spec({ linux: { resources: { cpu } } });

t.test('memory', async (t) => {
  t.equal(machineSize(spec({}), {}, HOST).memory, DEFAULT_MEMORY);
  t.equal(machineSize(limited(100 * MIB), {}, HOST).memory, 100 * MIB + GUEST_OVERHEAD);
  t.equal(machineSize(limited(1), {}, HOST).memory, GUEST_OVERHEAD + 2 * MIB, 'in steps of 2 MiB');
  t.equal(machineSize(limited(-1), {}, HOST).memory, DEFAULT_MEMORY, 'no limit');
  t.equal(machineSize(limited(2 ** 63), {}, HOST).memory, HOST.memory, 'no more than the host has');
  t.equal(machineSize(spec({ vm: { hwConfig: { memory: 512 * MIB } } }), {}, HOST).memory, 512 * MIB);
  t.equal(
    machineSize(limited(100 * MIB), { memory: 300 * MIB }, HOST).memory,
    300 * MIB,
    'the command line wins',
  );
  t.throws(() => machineSize(spec({ vm: { hwConfig: { memory: MIB } } }), {}, HOST), {
    message: /^config\.json: vm\.hwConfig\.memory: 1048576 bytes are too few/,
  });
  t.throws(() => machineSize(spec({}), { memory: 2 ** 40 }, HOST), {
    message: /^--memory: 1099511627776 bytes are more than this host has/,
  });
});

t.test('processors', async (t) => {
  t.equal(machineSize(spec({}), {}, HOST).cpus, 1);
  t.equal(machineSize(cpus({ quota: 150_000, period: 100_000 }), {}, HOST).cpus, 2);
  t.equal(machineSize(cpus({ quota: 250_000 }), {}, HOST).cpus, 3, 'the period is 100 ms by default');
  t.equal(machineSize(cpus({ quota: -1, period: 100_000 }), {}, HOST).cpus, 1);
  t.equal(machineSize(cpus({ quota: 50_000, period: 0 }), {}, HOST).cpus, 1);
  t.equal(machineSize(cpus({ quota: 100_000_000 }), {}, HOST).cpus, 4, 'no more than the host has');
  t.equal(machineSize(cpus({ cpus: '0-1,7' }), {}, HOST).cpus, 3);
  t.equal(machineSize(cpus({ cpus: '0-3', quota: 200_000 }), {}, HOST).cpus, 2);
  t.equal(machineSize(spec({ vm: { hwConfig: { vcpus: 7 } } }), {}, HOST).cpus, 7);
  t.equal(machineSize(spec({ vm: { hwConfig: { vcpus: 7 } } }), { cpus: 2 }, HOST).cpus, 2);
  t.equal(countCpus('5'), 1);
  t.throws(() => countCpus('3-1'), { message: /linux\.resources\.cpu\.cpus: "3-1" is not a range/ });
  t.ok(thisHost().cpus >= 1 && thisHost().memory > 0);
});
