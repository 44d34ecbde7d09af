import { resolve } from 'node:path';
import { DEFAULT_MEMORY, GUEST_OVERHEAD } from '../sizing.js';
import type { Spec } from '../spec/types.js';
import { ANNOTATION_PREFIX, readAnnotations } from './annotations.js';
import { readEnvironment } from './environment.js';
import { type ConfigFile, loadConfigFile } from './file.js';
import type { KeyName, Layer, ValueOf } from './keys.js';

/** A value, and where it was asked for: `--memory`, `config.json: vm.hwConfig.memory`. */
export interface Asked<T> {
  readonly value: T;
  readonly from: string;
  /** What the bundle's limits ask for may exceed it (Kata adds the limits to its defaults). */
  readonly least?: boolean;
}

/** How a machine is made, from all sources. */
export interface Settings {
  /** Absolute; undefined: tsvmm's own. */
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  /** After tsvmm's own; the strongest source's last. */
  readonly kernelParameters: readonly string[];
  /** Bytes, asked for outright; undefined: what the bundle's limit and `memoryOverhead` make, or `defaultMemory`. */
  readonly memory: Asked<number> | undefined;
  readonly defaultMemory: Asked<number>;
  /** Bytes. */
  readonly memoryOverhead: number;
  /** Asked for outright; undefined: what the bundle's quota and cpuset make, or `defaultVcpus`. */
  readonly vcpus: Asked<number> | undefined;
  readonly defaultVcpus: Asked<number>;
  readonly network: ValueOf<'network'>;
  readonly passt: { readonly program: string; readonly arguments: readonly string[] };
  readonly debugConsole: boolean;
  /** Seconds. */
  readonly bootTimeout: number;
  /** What a person should know of config.json's annotations. */
  readonly warnings: readonly string[];
}

/** What the command line asks for. */
export interface SettingFlags {
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  /** Bytes. */
  readonly memory?: number | undefined;
  readonly cpus?: number | undefined;
  readonly network?: ValueOf<'network'> | undefined;
  readonly debug?: boolean | undefined;
  /** Seconds. */
  readonly bootTimeout?: number | undefined;
}

interface Source {
  readonly layer: Layer;
  place(name: KeyName): string;
  readonly least?: boolean;
}

const BOOT_TIMEOUT = 60;

/**
 * The settings of a container's machine. From the strongest: the command line, annotations io.tsvmm.*, config.json's `vm` section,
 * annotations of Kata, (for the machine's size: the bundle's limits,) TSVMM_*, the configuration file, the defaults.
 * @param from.file read from its place where it is not given
 * @throws UserError that names the source, and what is wrong in it
 */
export function resolveSettings(from: {
  readonly flags?: SettingFlags;
  readonly spec: Pick<Spec, 'annotations' | 'vm'>;
  readonly env?: NodeJS.ProcessEnv;
  readonly file?: ConfigFile;
}): Settings {
  const { flags = {}, spec, env = process.env, file = loadConfigFile(env) } = from;
  const variables = readEnvironment(env);
  const annotations = readAnnotations(
    spec.annotations ?? {},
    file.settings.enable_annotations ?? ['*'],
    file.path,
  );
  const bundle: readonly Source[] = [
    { layer: flagLayer(flags), place: (name) => OPTIONS[name] ?? name },
    { layer: annotations.own, place: (name) => `config.json: annotations: ${ANNOTATION_PREFIX}${name}` },
    { layer: vmLayer(spec.vm), place: (name) => `config.json: ${VM_PLACES[name]}` },
    { layer: annotations.kata, place: (name) => `config.json: annotations: Kata's ${name}`, least: true },
  ];
  const host: readonly Source[] = [
    { layer: variables, place: (name) => `TSVMM_${name.toUpperCase()}` },
    { layer: file.settings, place: (name) => `${file.path}: ${name}` },
  ];
  const sources = [...bundle, ...host];
  const value = <N extends KeyName>(name: N): ValueOf<N> | undefined => asked(sources, name)?.value;
  return {
    kernel: value('kernel'),
    initrd: value('initrd'),
    kernelParameters: sources
      .map(({ layer }) => layer.kernel_parameters ?? [])
      .reverse()
      .flat(),
    memory: asked(bundle, 'memory'),
    defaultMemory: asked(host, 'memory') ?? { value: DEFAULT_MEMORY, from: 'the default' },
    memoryOverhead: value('memory_overhead') ?? GUEST_OVERHEAD,
    vcpus: asked(bundle, 'vcpus'),
    defaultVcpus: asked(host, 'vcpus') ?? { value: 1, from: 'the default' },
    network: value('network') ?? 'auto',
    passt: { program: value('passt') ?? 'passt', arguments: value('passt_arguments') ?? [] },
    debugConsole: value('debug_console') ?? false,
    bootTimeout: value('boot_timeout') ?? BOOT_TIMEOUT,
    warnings: annotations.warnings,
  };
}

/** The strongest source's value. */
function asked<N extends KeyName>(sources: readonly Source[], name: N): Asked<ValueOf<N>> | undefined {
  for (const { layer, place, least } of sources) {
    const value: Layer[N] = layer[name];
    if (value !== undefined) return { value, from: place(name), ...(least === true ? { least } : {}) };
  }
  return undefined;
}

const OPTIONS: { readonly [N in KeyName]?: string } = { memory: '--memory', vcpus: '--cpus' };

function flagLayer({ kernel, initrd, memory, cpus, network, debug, bootTimeout }: SettingFlags): Layer {
  return {
    ...(kernel === undefined ? {} : { kernel: resolve(kernel) }),
    ...(initrd === undefined ? {} : { initrd: resolve(initrd) }),
    ...(memory === undefined ? {} : { memory }),
    ...(cpus === undefined ? {} : { vcpus: cpus }),
    ...(network === undefined ? {} : { network }),
    ...(debug === undefined ? {} : { debug_console: debug }),
    ...(bootTimeout === undefined ? {} : { boot_timeout: bootTimeout }),
  };
}

const VM_PLACES: { readonly [N in KeyName]?: string } = {
  memory: 'vm.hwConfig.memory',
  vcpus: 'vm.hwConfig.vcpus',
};

function vmLayer(vm: Spec['vm']): Layer {
  const { kernel, hwConfig } = vm ?? {};
  return {
    ...(kernel === undefined ? {} : { kernel: kernel.path }),
    ...(kernel?.initrd === undefined ? {} : { initrd: kernel.initrd }),
    ...(kernel?.parameters === undefined ? {} : { kernel_parameters: kernel.parameters }),
    ...(hwConfig?.memory === undefined ? {} : { memory: hwConfig.memory }),
    ...(hwConfig?.vcpus === undefined ? {} : { vcpus: hwConfig.vcpus }),
  };
}
