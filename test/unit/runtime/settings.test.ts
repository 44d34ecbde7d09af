import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t from 'tap';
import { loadConfigFile, parseConfig } from '../../../src/runtime/config/file.js';
import type { Layer } from '../../../src/runtime/config/keys.js';
import { resolveSettings, type SettingFlags } from '../../../src/runtime/config/settings.js';
import { sizeMachine } from '../../../src/runtime/sizing.js';
import type { Spec } from '../../../src/runtime/spec/types.js';

const MIB = 1 << 20;
const HOST = { memory: 16 * 2 ** 30, cpus: 8 };

const bare = (parts: Partial<Spec> = {}): Spec => ({
  ociVersion: '1.3.0',
  root: { path: 'r' },
  process: { cwd: '/', args: ['a'] },
  ...parts,
});

function settle(
  from: { flags?: SettingFlags; spec?: Partial<Spec>; env?: NodeJS.ProcessEnv; file?: Layer } = {},
) {
  const { flags = {}, spec = {}, env = {}, file = {} } = from;
  return resolveSettings({ flags, spec: bare(spec), env, file: { path: 'config.toml', settings: file } });
}

t.test('the defaults', async (t) => {
  t.match(settle(), {
    kernel: undefined,
    initrd: undefined,
    kernelParameters: [],
    memory: undefined,
    defaultMemory: { value: 256 * MIB },
    memoryOverhead: 64 * MIB,
    vcpus: undefined,
    defaultVcpus: { value: 1 },
    network: 'auto',
    passt: { program: 'passt', arguments: [] },
    debugConsole: false,
    bootTimeout: 60,
    warnings: [],
  });
});

t.test('the precedence, from the strongest', async (t) => {
  const kata = 'io.katacontainers.config.hypervisor.';
  const sources = {
    flags: { kernel: '/flag', memory: 1 << 30, cpus: 7 },
    spec: {
      annotations: {
        'io.tsvmm.kernel': '/annotation',
        'io.tsvmm.memory': '900M',
        'io.tsvmm.vcpus': '6',
        'io.tsvmm.kernel_parameters': 'a b',
        [`${kata}kernel`]: '/kata',
        [`${kata}default_memory`]: '700',
        [`${kata}default_vcpus`]: '4',
        [`${kata}kernel_params`]: 'e',
      },
      vm: {
        kernel: { path: '/vm', parameters: ['c', 'd'] },
        hwConfig: { memory: 800 * MIB, vcpus: 5 },
      },
    },
    env: {
      TSVMM_KERNEL: '/variable',
      TSVMM_MEMORY: '600M',
      TSVMM_VCPUS: '3',
      TSVMM_KERNEL_PARAMETERS: 'f g',
    },
    file: { kernel: '/file', memory: 500 * MIB, vcpus: 2, kernel_parameters: ['h'] },
  };
  const size = (settings: ReturnType<typeof settle>) => sizeMachine(bare(), settings, HOST);
  const seen: [string | undefined, number, number][] = [];
  const look = (): void => {
    const settings = settle(sources);
    const { memory, cpus } = size(settings);
    seen.push([settings.kernel, memory / MIB, cpus]);
  };
  look();
  t.same(
    settle(sources).kernelParameters,
    ['h', 'f', 'g', 'e', 'c', 'd', 'a', 'b'],
    'all, the strongest last',
  );
  sources.flags = {} as typeof sources.flags;
  look();
  for (const name of Object.keys(sources.spec.annotations)) {
    if (name.startsWith('io.tsvmm.')) Reflect.deleteProperty(sources.spec.annotations, name);
  }
  look();
  sources.spec.vm = {} as typeof sources.spec.vm;
  look();
  sources.spec.annotations = {} as typeof sources.spec.annotations;
  look();
  sources.env = {} as typeof sources.env;
  look();
  sources.file = {} as typeof sources.file;
  look();
  t.same(seen, [
    ['/flag', 1024, 7],
    ['/annotation', 900, 6],
    ['/vm', 800, 5],
    ['/kata', 700, 4],
    ['/variable', 600, 3],
    ['/file', 500, 2],
    [undefined, 256, 1],
  ]);
});

t.test("a bundle's limits stand between what it asks for outright and the host's defaults", async (t) => {
  const linux = { resources: { memory: { limit: 1000 * MIB }, cpu: { quota: 300_000, period: 100_000 } } };
  const size = (settings: ReturnType<typeof settle>) => {
    const { memory, cpus } = sizeMachine(bare({ linux }), settings, HOST);
    return [memory / MIB, cpus];
  };
  t.same(size(settle({ file: { memory: 4096 * MIB, vcpus: 8 } })), [1064, 3]);
  t.same(size(settle({ env: { TSVMM_MEMORY: '2G', TSVMM_MEMORY_OVERHEAD: '100M' } })), [1100, 3]);
  t.same(size(settle({ spec: { vm: { hwConfig: { memory: 512 * MIB, vcpus: 1 } } } })), [512, 1]);
  const kata = (memory: string, vcpus: string) =>
    settle({
      spec: {
        annotations: {
          'io.katacontainers.config.hypervisor.default_memory': memory,
          'io.katacontainers.config.hypervisor.default_vcpus': vcpus,
        },
      },
    });
  t.same(size(kata('512', '1')), [1064, 3], "a default of Kata's is no less than the limits need");
  t.same(size(kata('2048', '4')), [2048, 4]);
  t.same(size(kata('0', '0')), [1064, 3], 'nor anything where it is 0');
});

t.test('every kind of value, as text', async (t) => {
  const env = {
    TSVMM_INITRD: 'relative/initrd',
    TSVMM_NETWORK: 'passt',
    TSVMM_PASST: '/opt/passt',
    TSVMM_PASST_ARGUMENTS: '-t 8080:80',
    TSVMM_DEBUG_CONSOLE: '1',
    TSVMM_BOOT_TIMEOUT: '2.5',
    TSVMM_KERNEL: '',
    TSVMM_DEBUG: '1',
    TSVMM_ADDON: '/x',
    TSVMM_TESTBED: '0',
    TSVMM_CONFIG: '/y',
    TSVMM_TEST_ANYTHING: 'z',
    OTHER: 'TSVMM_X',
  };
  t.match(settle({ env }), {
    kernel: undefined,
    initrd: resolve('relative/initrd'),
    network: 'passt',
    passt: { program: '/opt/passt', arguments: ['-t', '8080:80'] },
    debugConsole: true,
    bootTimeout: 2.5,
  });
  t.match(settle({ env, flags: { bootTimeout: 9, debug: false, network: 'none' } }), {
    bootTimeout: 9,
    debugConsole: false,
    network: 'none',
  });
});

t.test('what is wrong is named, with what was meant', async (t) => {
  const variable = (name: string, value: string) => () => settle({ env: { [name]: value } });
  const annotation = (name: string, value: string, enabled?: string[]) => () =>
    settle({
      spec: { annotations: { [name]: value } },
      file: enabled === undefined ? {} : { enable_annotations: enabled },
    });
  const toml = (text: string) => () => parseConfig(text, '/etc/c.toml');
  const cases: [() => unknown, string][] = [
    [variable('TSVMM_MEMROY', '1G'), 'TSVMM_MEMROY: there is no such variable: did you mean TSVMM_MEMORY?'],
    [variable('TSVMM_memory', '1G'), 'TSVMM_memory: there is no such variable'],
    [variable('TSVMM_ENABLE_ANNOTATIONS', '*'), 'TSVMM_ENABLE_ANNOTATIONS: there is no such variable'],
    [variable('TSVMM_VCPUS', '0'), 'TSVMM_VCPUS: expected a whole number from 1 to 254, got "0"'],
    [variable('TSVMM_MEMORY', '1M'), 'TSVMM_MEMORY: expected at least 64M, got "1M"'],
    [variable('TSVMM_NETWORK', 'tap'), 'TSVMM_NETWORK: expected auto, passt or none, got "tap"'],
    [variable('TSVMM_DEBUG_CONSOLE', 'yes'), 'TSVMM_DEBUG_CONSOLE: expected true or false, got "yes"'],
    [
      annotation('io.tsvmm.memroy', '1G'),
      'config.json: annotations: io.tsvmm.memroy: there is no such setting: did you mean io.tsvmm.memory?',
    ],
    [
      annotation('io.tsvmm.passt', 'x'),
      'config.json: annotations: io.tsvmm.passt: is a setting of the host, not of a bundle',
    ],
    [
      annotation('io.tsvmm.kernel', 'vmlinux'),
      'config.json: annotations: io.tsvmm.kernel: expected an absolute path, like "/usr/share/tsvmm/bzImage", got "vmlinux"',
    ],
    [
      annotation('io.tsvmm.kernel', '/k', ['memory']),
      'config.json: annotations: io.tsvmm.kernel: not allowed by enable_annotations of config.toml',
    ],
    [
      annotation('io.katacontainers.config.hypervisor.initrd', '/i', ['memory']),
      'config.json: annotations: io.katacontainers.config.hypervisor.initrd: not allowed by enable_annotations of config.toml',
    ],
    [
      annotation('io.katacontainers.config.hypervisor.default_memory', 'much'),
      'config.json: annotations: io.katacontainers.config.hypervisor.default_memory: expected a size like',
    ],
    [toml('\nmemroy = 1'), '/etc/c.toml:2: memroy: there is no such setting: did you mean memory?'],
    [toml('# memory\n[memory]\nx = 1'), '/etc/c.toml:2: memory: expected a size, like "512M", got an object'],
    [toml('[hypervisor]\nkernel = "/k"'), '/etc/c.toml:1: hypervisor: there is no such setting'],
    [toml('kernel = 3'), '/etc/c.toml:1: kernel: expected an absolute path'],
    [toml('vcpus = 1.5'), '/etc/c.toml:1: vcpus: expected a whole number from 1 to 254, got "1.5"'],
    [toml('kernel_parameters = ["a", 1]'), '/etc/c.toml:1: kernel_parameters: expected an array of strings'],
    [toml('vcpus = 1\nvcpus = 2'), '/etc/c.toml:2: not TOML: '],
    [toml('vcpus = '), '/etc/c.toml:1: not TOML: '],
    [
      toml('enable_annotations = ["memory", "kernle"]'),
      '/etc/c.toml:1: enable_annotations: there is no setting kernle: did you mean kernel?',
    ],
  ];
  for (const [wrong, message] of cases) {
    try {
      wrong();
      t.fail(message);
    } catch (error) {
      t.match(error, { name: 'UserError' });
      t.ok(
        String((error as Error).message).startsWith(message),
        `${message}\n  got: ${(error as Error).message}`,
      );
    }
  }
});

t.test('annotations of others', async (t) => {
  const { warnings } = settle({
    spec: {
      annotations: {
        'org.example': 'x',
        'io.katacontainers.pkg.oci.container_type': 'pod_sandbox',
        'io.katacontainers.config.hypervisor.default_memroy': '1',
        'io.katacontainers.config.hypervisor.enable_iommu': 'true',
      },
    },
  });
  t.same(warnings, [
    'annotations: io.katacontainers.config.hypervisor.default_memroy has no effect: did you mean io.katacontainers.config.hypervisor.default_memory?',
    'annotations: io.katacontainers.config.hypervisor.enable_iommu has no effect',
  ]);
});

t.test('the file', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tsvmm-config-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'config.toml');
  t.throws(() => loadConfigFile({ TSVMM_CONFIG: path }), {
    name: 'UserError',
    message: `${path}: no such file or folder`,
  });
  writeFileSync(path, 'memory = 536870912\nnetwork = "none"\nkernel_parameters = ["a=b", "c"]\n');
  t.same(loadConfigFile({ TSVMM_CONFIG: path }), {
    path,
    settings: { memory: 512 * MIB, network: 'none', kernel_parameters: ['a=b', 'c'] },
  });
});
