import type { Spec } from '../../src/runtime/spec/types.js';

/** A config.json as `runc spec` makes it, nearly every property set: what tests begin with and change. */
export function sampleSpec(): Spec {
  return {
    ociVersion: '1.0.2',
    root: { path: 'rootfs', readonly: true },
    process: {
      terminal: false,
      consoleSize: { height: 25, width: 80 },
      cwd: '/',
      env: ['PATH=/bin', 'TERM=xterm'],
      args: ['sh', '-c', 'true'],
      user: { uid: 1000, gid: 1000, umask: 18, additionalGids: [5, 6] },
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: 1024, hard: 1024 },
        { type: 'RLIMIT_CORE', soft: 0, hard: 2 ** 53 - 1 },
      ],
      capabilities: {
        bounding: ['CAP_AUDIT_WRITE', 'CAP_KILL'],
        effective: ['CAP_KILL'],
        inheritable: [],
        permitted: ['CAP_KILL'],
        ambient: ['CAP_KILL'],
      },
      noNewPrivileges: true,
      oomScoreAdj: 100,
    },
    hostname: 'sample',
    domainname: 'example.org',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
      { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'gid=5'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] },
    ],
    hooks: { poststop: [] },
    annotations: { 'org.example.key': 'value' },
    linux: {
      namespaces: [{ type: 'pid' }, { type: 'network' }, { type: 'ipc' }, { type: 'uts' }, { type: 'mount' }],
      uidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
      gidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
      devices: [{ type: 'c', path: '/dev/fuse', major: 10, minor: 229 }],
      cgroupsPath: 'system.slice:sample:1',
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        memory: { limit: 100 << 20, swap: -1 },
        cpu: { shares: 1024, quota: 150_000, period: 100_000, cpus: '0-3', mems: '0' },
        pids: { limit: 32 },
        blockIO: { weight: 10, throttleReadBpsDevice: [] },
        unified: { 'memory.high': '1000000' },
      },
      rootfsPropagation: 'private',
      seccomp: {
        defaultAction: 'SCMP_ACT_ALLOW',
        architectures: ['SCMP_ARCH_X86_64'],
        syscalls: [
          {
            names: ['getcwd'],
            action: 'SCMP_ACT_ERRNO',
            errnoRet: 1,
            args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }],
          },
        ],
      },
      sysctl: { 'net.ipv4.ip_forward': '1' },
      maskedPaths: ['/proc/kcore'],
      readonlyPaths: ['/proc/sys'],
    },
    vm: {
      kernel: { path: '/boot/vmlinuz', parameters: ['quiet'], initrd: '/boot/initrd' },
      hwConfig: { vcpus: 2, memory: 512 << 20 },
    },
  };
}
