import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  cgroupFolders,
  cpuLimitOf,
  enterCgroups,
  limitCgroups,
  ownCgroup,
} from '../../../src/runtime/host-cgroup.js';

/** A folder that looks like a control group. */
function group(t: Test, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'tsvmm-cgroup-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

t.test('processor time is limited as the container asks', async (t) => {
  const folder = group(t, { 'cpu.max': 'max 100000\n', 'cpu.weight': '100\n', 'cpuset.cpus': '\n' });
  const now = (name: string) => readFileSync(join(folder, name), 'utf8');
  limitCgroups([folder], {});
  t.equal(now('cpu.max'), 'max 100000\n', 'nothing is asked');
  limitCgroups([folder], { cpu: { quota: 5000 } });
  t.equal(now('cpu.max'), '5000 100000');
  limitCgroups([folder], { cpu: { period: 900_000, shares: 3333, cpus: '0-1' } });
  t.equal(now('cpu.max'), '5000 900000', 'the quota stays');
  t.equal(now('cpu.weight'), '128');
  t.equal(now('cpuset.cpus'), '0-1');
  t.same(cpuLimitOf([folder]), { quota: 5000, period: 900_000 });
  limitCgroups([folder], { cpu: { quota: -1, shares: 2 } });
  t.same(cpuLimitOf([join(folder, 'none'), folder]), { quota: -1, period: 900_000 });
  t.equal(cpuLimitOf([]), undefined);
  t.equal(now('cpu.max'), 'max 900000');
  t.equal(now('cpu.weight'), '1');
  limitCgroups([folder], { cpu: { quota: 7 }, unified: { 'cpu.max': '1 2', 'cpu.weight': '42' } });
  t.equal(now('cpu.max'), '1 2', 'unified has the last word');
  t.equal(now('cpu.weight'), '42');
  limitCgroups([join(folder, 'none')], { cpu: { quota: 7 } });
});

t.test('cgroup v1 has files of its own', async (t) => {
  const folder = group(t, { 'cpu.cfs_quota_us': '', 'cpu.cfs_period_us': '', 'cpu.shares': '' });
  limitCgroups([folder], { cpu: { quota: 5000, period: 50_000, shares: 7 } });
  const now = (name: string) => readFileSync(join(folder, name), 'utf8');
  t.same(['cpu.cfs_quota_us', 'cpu.cfs_period_us', 'cpu.shares'].map(now), ['5000', '50000', '7']);
});

t.test('the limits of cgroup v1', (t) => {
  const folder = group(t, { 'cpu.cfs_quota_us': '5000\n', 'cpu.cfs_period_us': '50000\n' });
  t.same(cpuLimitOf([folder]), { quota: 5000, period: 50_000 });
  t.end();
});

t.test('a group with others in it is told, one that is frozen refused', async (t) => {
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  const folder = group(t, { 'cgroup.procs': '' });
  t.same(enterCgroups([folder], 7, warn), [folder]);
  t.equal(readFileSync(join(folder, 'cgroup.procs'), 'utf8'), '7');
  t.same(warnings, []);
  enterCgroups([folder], 8, warn);
  t.match(warnings, [/^container's cgroup is not empty: 1 process\(es\) found in /]);
  writeFileSync(join(folder, 'cgroup.freeze'), '1\n');
  t.throws(() => enterCgroups([folder], 7, warn), { name: 'UserError', message: /unexpectedly frozen/ });
});

t.test('groups that cannot be had are left out', async (t) => {
  const folder = group(t, {});
  writeFileSync(join(folder, 'file'), '');
  mkdirSync(join(folder, 'ok'));
  t.same(
    enterCgroups([join(folder, 'file', 'x'), join(folder, 'ok')], 7, () => {}),
    [join(folder, 'ok')],
  );
});

t.test('where a group is', async (t) => {
  t.match(ownCgroup('c'), /\/c$/);
  const last = (path: string) => new Set(cgroupFolders(path).map((folder) => folder.split('/cgroup')[1]));
  for (const folder of cgroupFolders('/../a/./b')) t.match(folder, /[^.]\/a\/b$/, 'within the hierarchy');
  for (const folder of cgroupFolders('machine-x.slice:libpod:c')) {
    t.match(folder, /\/machine\.slice\/machine-x\.slice\/libpod-c\.scope$/);
  }
  t.same(last('/'), new Set());
});
