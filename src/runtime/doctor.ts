import {
  KVM_CAP_ADJUST_CLOCK,
  KVM_CAP_EXT_CPUID,
  KVM_CAP_IMMEDIATE_EXIT,
  KVM_CAP_IOEVENTFD,
  KVM_CAP_IRQCHIP,
  KVM_CAP_IRQFD,
  KVM_CAP_MP_STATE,
  KVM_CAP_PIT2,
  KVM_CAP_SET_TSS_ADDR,
  KVM_CAP_USER_MEMORY,
} from '../kvm/constants.js';

/** What tsvmm needs of this host, and whether it is there; each finding with its remedy. The host is seen through Probes. */
export interface Finding {
  /** What was looked at, in a few words. */
  readonly name: string;
  /** `missing`: containers do not run without it; `warning`: they do, with less. */
  readonly state: 'ok' | 'warning' | 'missing';
  readonly detail: string;
  /** What to do; absent where nothing is wrong. */
  readonly remedy?: string;
}

/** What the examination looks at. */
export interface Probes {
  readonly architecture: string;
  /** The text of a file; undefined where it cannot be read. */
  read(path: string): string | undefined;
  /** Whether the file is there. */
  exists(path: string): boolean;
  /** Whether it can be opened for reading and writing. */
  access(path: string): 'ok' | 'absent' | 'denied';
  /** Why the native addon does not load; undefined: it does. */
  addonProblem(): string | undefined;
  /** What KVM says of each capability in NEEDED_CAPABILITIES, or why it cannot be asked. */
  capabilities(): ReadonlyMap<string, number> | string;
  /** Bytes that new processes can have. */
  readonly availableMemory: number;
  /** Where tsvmm's kernel and initramfs may be, best first. */
  guestFilePlaces(what: 'kernel' | 'initrd'): readonly string[];
  /** Tries to make and to write the folder for unpacked kernels: undefined, or why it cannot be. */
  cacheProblem(): string | undefined;
  readonly cacheDirectory: string;
  /** What the configuration file and TSVMM_* set, or why they cannot be followed. */
  settings(): { readonly path: string; readonly names: readonly string[] } | string;
  /** Debian packages that the build needs; empty where this is no source tree. */
  neededPackages(): readonly string[];
}

/** The capabilities without which no machine starts (Documentation/virt/kvm/api.rst), with their numbers. */
export const NEEDED_CAPABILITIES: ReadonlyMap<string, number> = new Map(
  Object.entries({
    KVM_CAP_IRQCHIP,
    KVM_CAP_USER_MEMORY,
    KVM_CAP_SET_TSS_ADDR,
    KVM_CAP_EXT_CPUID,
    KVM_CAP_MP_STATE,
    KVM_CAP_IRQFD,
    KVM_CAP_PIT2,
    KVM_CAP_IOEVENTFD,
    KVM_CAP_ADJUST_CLOCK,
    KVM_CAP_IMMEDIATE_EXIT,
  }),
);

const MIB = 1 << 20;
const ENOUGH_MEMORY = 320 * MIB;

export function examine(probes: Probes): Finding[] {
  return [
    processor(probes),
    kvmBackend(probes),
    kvmRights(probes),
    addonState(probes),
    capabilities(probes),
    settings(probes),
    guestFile(probes, 'kernel'),
    guestFile(probes, 'initrd'),
    memory(probes),
    cache(probes),
    packages(probes),
    passt(probes),
    ...optionalDevices(probes),
  ];
}

/** Whether containers can run. */
export function healthy(findings: readonly Finding[]): boolean {
  return findings.every(({ state }) => state !== 'missing');
}

function processor({ architecture, read }: Probes): Finding {
  const name = 'processor';
  if (architecture !== 'x64') {
    return {
      name,
      state: 'missing',
      detail: `this is ${architecture}; tsvmm runs on x86-64`,
      remedy: 'use an x86-64 host',
    };
  }
  const model = /^model name\s*:\s*(.*)$/m.exec(read('/proc/cpuinfo') ?? '')?.[1] ?? 'x86-64';
  return { name, state: 'ok', detail: model };
}

function settings(probes: Probes): Finding {
  const name = 'settings';
  const found = probes.settings();
  if (typeof found === 'string') {
    return { name, state: 'missing', detail: found, remedy: 'correct it: docs/configuration.md' };
  }
  const { path, names } = found;
  return {
    name,
    state: 'ok',
    detail: names.length === 0 ? 'the defaults' : `${names.join(', ')} (${path} and TSVMM_*)`,
  };
}

const NESTED_REMEDY =
  'enable virtualization in the firmware; where this host is a virtual machine itself, enable nested virtualization ' +
  'for it; then: modprobe kvm_intel (or kvm_amd). Without, run in the testbed: testbed/testbed -- tsvmm ...';

function kvmBackend({ exists, read }: Probes): Finding {
  const name = 'what is behind /dev/kvm';
  const flags = ` ${/^flags\s*:\s*(.*)$/m.exec(read('/proc/cpuinfo') ?? '')?.[1] ?? ''} `;
  const nested = flags.includes(' hypervisor ') ? ', nested: this host is a virtual machine itself' : '';
  for (const [module, what] of [
    ['kvm_intel', 'Intel VT-x'],
    ['kvm_amd', 'AMD-V'],
  ] as const) {
    if (exists(`/sys/module/${module}`)) return { name, state: 'ok', detail: `${module} (${what})${nested}` };
  }
  if (exists('/sys/module/kvm_pvm')) {
    return {
      name,
      state: 'missing',
      detail: 'kvm_pvm: runs small bare-metal guests, but no Linux kernel as distributions build it',
      remedy: 'run in the testbed: testbed/testbed -- tsvmm ..., or use a host with kvm_intel or kvm_amd',
    };
  }
  if (exists('/dev/kvm') && !exists('/sys/module')) {
    return {
      name,
      state: 'warning',
      detail: 'unknown: there is no /sys/module here',
      remedy: 'mount sysfs on /sys',
    };
  }
  const hardware = flags.includes(' vmx ') || flags.includes(' svm ');
  return {
    name,
    state: 'missing',
    detail: hardware
      ? 'nothing: the processor can, but no KVM module is loaded'
      : 'nothing: the processor shows neither VT-x (vmx) nor AMD-V (svm)',
    remedy: hardware ? 'modprobe kvm_intel (or kvm_amd)' : NESTED_REMEDY,
  };
}

function kvmRights({ access }: Probes): Finding {
  const name = 'rights to /dev/kvm';
  switch (access('/dev/kvm')) {
    case 'ok':
      return { name, state: 'ok', detail: 'can be read and written' };
    case 'denied':
      return {
        name,
        state: 'missing',
        detail: 'this user may not open it',
        remedy: 'usermod -aG kvm USER and log in again, or run as root; in a container: --device /dev/kvm',
      };
    case 'absent':
      return { name, state: 'missing', detail: 'there is no /dev/kvm', remedy: NESTED_REMEDY };
  }
}

function addonState({ addonProblem }: Probes): Finding {
  const name = 'native addon';
  const problem = addonProblem();
  if (problem === undefined) return { name, state: 'ok', detail: 'loads' };
  return { name, state: 'missing', detail: problem, remedy: 'npm run build (needs g++, cmake, make)' };
}

function capabilities(probes: Probes): Finding {
  const name = 'KVM capabilities';
  const known = probes.capabilities();
  if (typeof known === 'string') {
    return { name, state: 'missing', detail: `cannot be asked: ${known}`, remedy: 'see the lines above' };
  }
  const absent = [...NEEDED_CAPABILITIES.keys()].filter((capability) => (known.get(capability) ?? 0) <= 0);
  if (absent.length === 0) {
    return { name, state: 'ok', detail: `all ${NEEDED_CAPABILITIES.size} that are needed` };
  }
  return {
    name,
    state: 'missing',
    detail: `absent: ${absent.join(', ')}`,
    remedy: 'use a host kernel of Linux 4.19 or later with kvm_intel or kvm_amd',
  };
}

function guestFile(probes: Probes, what: 'kernel' | 'initrd'): Finding {
  const name = what === 'kernel' ? 'guest kernel' : 'guest initramfs';
  const places = probes.guestFilePlaces(what);
  const found = places.find((path) => probes.exists(path));
  if (found !== undefined) return { name, state: 'ok', detail: found };
  return { name, state: 'missing', detail: `not in ${places.join(', ')}`, remedy: 'npm run setup' };
}

function memory({ availableMemory }: Probes): Finding {
  const name = 'memory';
  const detail = `${Math.floor(availableMemory / MIB)} MiB available`;
  if (availableMemory >= ENOUGH_MEMORY) return { name, state: 'ok', detail };
  return {
    name,
    state: 'warning',
    detail,
    remedy: `a container's machine has 256 MiB by default: stop other programs, or limit it with --memory`,
  };
}

function cache(probes: Probes): Finding {
  const name = 'cache of unpacked kernels';
  const problem = probes.cacheProblem();
  if (problem === undefined) return { name, state: 'ok', detail: probes.cacheDirectory };
  return {
    name,
    state: 'warning',
    detail: `${probes.cacheDirectory}: ${problem}: every start unpacks its kernel anew`,
    remedy: 'make the folder writable, or name another with XDG_CACHE_HOME',
  };
}

function packages(probes: Probes): Finding {
  const name = 'Debian packages';
  const status = probes.read('/var/lib/dpkg/status');
  if (status === undefined) {
    return { name, state: 'ok', detail: 'not looked at: this is no Debian' };
  }
  const installed = new Set<string>();
  for (const [, entry, state] of status.matchAll(/^Package: (\S+)\nStatus: \S+ \S+ (\S+)$/gm)) {
    if (entry !== undefined && state === 'installed') installed.add(entry);
  }
  const missing = probes.neededPackages().filter((entry) => !installed.has(entry));
  if (missing.length === 0) return { name, state: 'ok', detail: 'all that the build needs are installed' };
  return {
    name,
    state: 'warning',
    detail: `not installed, needed to build or to test: ${missing.join(', ')}`,
    remedy: `apt-get install --no-install-recommends ${missing.join(' ')}`,
  };
}

const PASST = ['/usr/bin/passt', '/usr/local/bin/passt', '/bin/passt'];

function passt({ exists }: Probes): Finding {
  const name = 'passt';
  const path = PASST.find(exists);
  if (path !== undefined) return { name, state: 'ok', detail: path };
  return {
    name,
    state: 'warning',
    detail: 'is not installed (for networks without root; not needed to run)',
    remedy: 'apt-get install passt',
  };
}

function optionalDevices({ access }: Probes): Finding[] {
  return [
    ['/dev/net/tun', 'networks of containers'],
    ['/dev/vhost-net', 'fast networks'],
    ['/dev/vhost-vsock', "the kernel's own vsock"],
  ].map(([path = '', use]): Finding => {
    const state = access(path);
    if (state === 'ok') return { name: path, state: 'ok', detail: 'can be read and written' };
    return {
      name: path,
      state: 'warning',
      detail: `${state === 'absent' ? 'is not there' : 'this user may not open it'} (for ${use}; not needed to run)`,
      remedy:
        state === 'absent'
          ? `modprobe ${path.slice(5).replace('net/', '').replace('-', '_')}`
          : 'run as root',
    };
  });
}
