import type { Mount, Spec } from './types.js';
import { OCI_VERSION_MAX } from './version.js';

/**
 * The configuration that `runc spec` writes, but for the host name.
 * @param rootless the user for whom it is to be one without privileges
 */
export function exampleSpec(rootless?: { readonly uid: number; readonly gid: number }): Spec {
  const capabilities = (): string[] => ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'];
  const spec: Spec = {
    ociVersion: OCI_VERSION_MAX,
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ['sh'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: {
        bounding: capabilities(),
        effective: capabilities(),
        permitted: capabilities(),
        ambient: capabilities(),
      },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: true },
    hostname: 'tsvmm',
    mounts: mounts(),
    linux: {
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: [
        { type: 'pid' },
        { type: 'network' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'cgroup' },
      ],
      maskedPaths: [
        '/proc/acpi',
        '/proc/asound',
        '/proc/kcore',
        '/proc/keys',
        '/proc/latency_stats',
        '/proc/timer_list',
        '/proc/timer_stats',
        '/proc/sched_debug',
        '/sys/firmware',
        '/proc/scsi',
      ],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  };
  return rootless === undefined ? spec : withoutPrivileges(spec, rootless);
}

function mounts(): Mount[] {
  const mount = (destination: string, type: string, source: string, options?: string): Mount => ({
    destination,
    type,
    source,
    ...(options === undefined ? {} : { options: options.split(',') }),
  });
  return [
    mount('/proc', 'proc', 'proc'),
    mount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
    mount('/dev/pts', 'devpts', 'devpts', 'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5'),
    mount('/dev/shm', 'tmpfs', 'shm', 'nosuid,noexec,nodev,mode=1777,size=65536k'),
    mount('/dev/mqueue', 'mqueue', 'mqueue', 'nosuid,noexec,nodev'),
    mount('/sys', 'sysfs', 'sysfs', 'nosuid,noexec,nodev,ro'),
    mount('/sys/fs/cgroup', 'cgroup', 'cgroup', 'nosuid,noexec,nodev,relatime,ro'),
  ];
}

/** What runc changes for `spec --rootless`: no network namespace, a user namespace of one user, nothing that needs more. */
function withoutPrivileges(spec: Spec, { uid, gid }: { readonly uid: number; readonly gid: number }): Spec {
  const { resources: _resources, namespaces = [], ...linux } = spec.linux ?? {};
  return {
    ...spec,
    mounts: (spec.mounts ?? []).map((mount) => {
      if (mount.destination === '/sys') {
        return {
          destination: '/sys',
          type: 'none',
          source: '/sys',
          options: ['rbind', 'nosuid', 'noexec', 'nodev', 'ro'],
        };
      }
      const { options } = mount;
      return options === undefined
        ? mount
        : { ...mount, options: options.filter((option) => !/^[ug]id=/.test(option)) };
    }),
    linux: {
      uidMappings: [{ containerID: 0, hostID: uid, size: 1 }],
      gidMappings: [{ containerID: 0, hostID: gid, size: 1 }],
      namespaces: [...namespaces.filter(({ type }) => type !== 'network'), { type: 'user' }],
      ...linux,
    },
  };
}
