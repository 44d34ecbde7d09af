import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { Spec } from '../../src/runtime/spec/types.js';
import { makeBusyboxRoot } from './busybox-root.js';

const MOUNTS: NonNullable<Spec['mounts']> = [
  { destination: '/proc', type: 'proc', source: 'proc' },
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  {
    destination: '/dev/shm',
    type: 'tmpfs',
    source: 'shm',
    options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
  },
  { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
  {
    destination: '/sys/fs/cgroup',
    type: 'cgroup',
    source: 'cgroup',
    options: ['nosuid', 'noexec', 'nodev', 'relatime', 'ro'],
  },
];

/** Those that docker gives. */
const CAPABILITIES =
  'CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE'
    .split(' ')
    .map((name) => `CAP_${name}`);

/** A folder that is removed with the test. */
export function temporaryFolder(t: Test, above = tmpdir()): string {
  const folder = mkdtempSync(join(above, 'tsvmm-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** One on a tmpfs, removed as well. */
export function memoryFolder(t: Test): string {
  return temporaryFolder(t, '/dev/shm');
}

/**
 * A bundle with a busybox root file system that runs `script` with its shell, as `runc spec` would write it.
 * @param change what the test wants otherwise; it gets the bundle's folder too
 */
export function makeBundle(
  t: Test,
  script: string,
  change: (spec: Spec, folder: string) => void = () => {},
): string {
  const folder = temporaryFolder(t);
  const root = join(folder, 'rootfs');
  makeBusyboxRoot(root, ['dev', 'proc', 'sys', 'tmp', 'root', 'home/user']);
  const spec: Spec = {
    ociVersion: '1.0.2',
    root: { path: 'rootfs' },
    process: {
      cwd: '/',
      args: ['/bin/sh', '-c', script],
      env: ['PATH=/bin', 'HOME=/root'],
      user: { uid: 0, gid: 0 },
      capabilities: {
        bounding: [...CAPABILITIES],
        effective: [...CAPABILITIES],
        permitted: [...CAPABILITIES],
      },
      rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 1024 }],
      noNewPrivileges: true,
    },
    hostname: 'tsvmm-test',
    mounts: structuredClone(MOUNTS),
    linux: {
      namespaces: [
        { type: 'pid' },
        { type: 'network' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'cgroup' },
      ],
      maskedPaths: ['/proc/kcore', '/proc/keys', '/sys/firmware'],
      readonlyPaths: ['/proc/sys', '/proc/bus'],
    },
  };
  change(spec, folder);
  writeFileSync(join(folder, 'config.json'), JSON.stringify(spec, undefined, 2));
  return folder;
}
