import t from 'tap';
import {
  examine,
  type Finding,
  healthy,
  NEEDED_CAPABILITIES,
  type Probes,
} from '../../../src/runtime/doctor.js';
import { hostProbes } from '../../../src/runtime/host-probes.js';

const CPUINFO = 'model name\t: Example CPU\nflags\t\t: fpu vmx hypervisor\n';

/** A host where all is well, with what a test changes. */
function host(change: Partial<Probes> = {}, files: Record<string, string> = {}): Probes {
  const texts: Record<string, string> = {
    '/proc/cpuinfo': CPUINFO,
    '/sys/module/kvm_intel': '',
    '/sys/module': '',
    '/dev/kvm': '',
    '/k': '',
    '/i': '',
    '/usr/bin/passt': '',
    '/var/lib/dpkg/status':
      'Package: flex\nStatus: install ok installed\n\nPackage: bison\nStatus: deinstall ok config-files\n',
    ...files,
  };
  return {
    architecture: 'x64',
    read: (path) => texts[path],
    exists: (path) => texts[path] !== undefined,
    access: () => 'ok',
    addonProblem: () => undefined,
    capabilities: () => new Map([...NEEDED_CAPABILITIES.keys()].map((name) => [name, 1])),
    availableMemory: 2 ** 32,
    guestFilePlaces: (what) => (what === 'kernel' ? ['/none', '/k'] : ['/i']),
    cacheProblem: () => undefined,
    settings: () => ({ path: '/etc/tsvmm/config.toml', names: ['memory'] }),
    cacheDirectory: '/cache',
    neededPackages: () => ['flex'],
    ...change,
  };
}

/** The finding that isn't `ok`: there must be one only. */
function onlyProblem(probes: Probes): Finding {
  const problems = examine(probes).filter(({ state }) => state !== 'ok');
  if (problems.length !== 1 || problems[0] === undefined) {
    throw new Error(`${problems.length} problems: ${JSON.stringify(problems)}`);
  }
  return problems[0];
}

/** Without the module of hardware KVM, and with another text of /proc/cpuinfo. */
function without(flags: string, others: Record<string, string> = {}): Probes {
  const texts: Record<string, string> = {
    '/proc/cpuinfo': `flags\t: ${flags}\n`,
    '/sys/module': '',
    '/k': '',
    '/i': '',
    '/usr/bin/passt': '',
    ...others,
  };
  return host({ read: (path) => texts[path], exists: (path) => texts[path] !== undefined });
}

t.test('a host where all is well', async (t) => {
  const findings = examine(host());
  t.same(
    findings.filter(({ state }) => state !== 'ok'),
    [],
  );
  t.ok(healthy(findings));
  t.match(findings[1]?.detail, /kvm_intel \(Intel VT-x\), nested/);
  t.ok(findings.every(({ remedy }) => remedy === undefined));
});

t.test('each thing that may be missing, with its remedy', async (t) => {
  const cases: [string, Probes, 'warning' | 'missing', RegExp, RegExp][] = [
    ['architecture', host({ architecture: 'arm64' }), 'missing', /this is arm64/, /x86-64/],
    [
      'rights',
      host({ access: (path) => (path === '/dev/kvm' ? 'denied' : 'ok') }),
      'missing',
      /may not open/,
      /usermod -aG kvm/,
    ],
    [
      'no device',
      host({ access: (path) => (path === '/dev/kvm' ? 'absent' : 'ok') }),
      'missing',
      /no \/dev\/kvm/,
      /firmware/,
    ],
    ['addon', host({ addonProblem: () => 'broken' }), 'missing', /broken/, /npm run build/],
    ['ask', host({ capabilities: () => 'EIO' }), 'missing', /cannot be asked: EIO/, /above/],
    [
      'capability',
      host({ capabilities: () => new Map() }),
      'missing',
      /KVM_CAP_IRQCHIP, .*KVM_CAP_IMMEDIATE_EXIT/,
      /kernel/,
    ],
    [
      'guest kernel',
      host({ guestFilePlaces: (what) => [what === 'kernel' ? '/a' : '/i'] }),
      'missing',
      /not in \/a/,
      /npm run setup/,
    ],
    [
      'initramfs',
      host({ guestFilePlaces: (what) => [what === 'kernel' ? '/k' : '/b'] }),
      'missing',
      /not in \/b/,
      /npm run setup/,
    ],
    ['memory', host({ availableMemory: 100 << 20 }), 'warning', /100 MiB/, /--memory/],
    [
      'cache',
      host({ cacheProblem: () => 'the disk is full' }),
      'warning',
      /\/cache: the disk is full/,
      /XDG_CACHE_HOME/,
    ],
    [
      'packages',
      host({ neededPackages: () => ['flex', 'bison', 'bc'] }),
      'warning',
      /bison, bc$/,
      /apt-get install .* bison bc$/,
    ],
    [
      'passt',
      host({ exists: (path) => path !== '/usr/bin/passt' && host({}).exists(path) }),
      'warning',
      /not installed/,
      /^apt-get install passt$/,
    ],
    [
      'tun',
      host({ access: (path) => (path === '/dev/net/tun' ? 'absent' : 'ok') }),
      'warning',
      /not there/,
      /^modprobe tun$/,
    ],
    [
      'vhost',
      host({ access: (path) => (path === '/dev/vhost-net' ? 'denied' : 'ok') }),
      'warning',
      /may not open/,
      /root/,
    ],
    ['pvm', without('fpu', { '/sys/module/kvm_pvm': '' }), 'missing', /kvm_pvm/, /testbed/],
    ['nothing', without('fpu'), 'missing', /neither VT-x/, /nested virtualization/],
    ['no module', without('fpu svm'), 'missing', /no KVM module/, /modprobe/],
  ];
  for (const [name, probes, state, detail, remedy] of cases) {
    const finding = onlyProblem(probes);
    t.equal(finding.state, state, name);
    t.match(finding.detail, detail, name);
    t.match(finding.remedy, remedy, name);
    t.equal(healthy([finding]), state === 'warning');
  }
});

t.test('the real host can be examined', async (t) => {
  const findings = examine(hostProbes());
  t.ok(findings.length >= 12);
  for (const { name, state, detail, remedy } of findings) {
    t.ok(detail.length > 0, name);
    t.equal(
      remedy === undefined,
      state === 'ok',
      `${name}: a remedy where something is wrong, and only there`,
    );
  }
  t.type(hostProbes().cacheProblem(), 'undefined');
  t.type(hostProbes({ XDG_CACHE_HOME: '/dev/null/none' }).cacheProblem(), 'string');
});

t.test('settings that cannot be followed', async (t) => {
  t.same(
    onlyProblem(host({ settings: () => '/etc/tsvmm/config.toml:1: memroy: there is no such setting' })),
    {
      name: 'settings',
      state: 'missing',
      detail: '/etc/tsvmm/config.toml:1: memroy: there is no such setting',
      remedy: 'correct it: docs/configuration.md',
    },
  );
  const real = (env: NodeJS.ProcessEnv) => hostProbes({ TSVMM_CONFIG: '/dev/null', ...env });
  t.same(real({ TSVMM_KERNEL: '/k' }).settings(), { path: '/dev/null', names: ['kernel'] });
  t.same(real({ TSVMM_KERNEL: '/k' }).guestFilePlaces('kernel'), ['/k']);
  t.match(real({ TSVMM_KERNLE: '/k' }).settings(), /TSVMM_KERNLE: there is no such variable/);
});
