/**
 * Every setting of tsvmm that is not of a single command: one table, from which come the checks of /etc/tsvmm/config.toml,
 * of TSVMM_* and of annotations, the shipped example and the table of docs/configuration.md.
 */
export interface Key {
  readonly type: 'path' | 'word' | 'words' | 'size' | 'integer' | 'seconds' | 'boolean' | 'choice';
  /** The least and the most of a number. */
  readonly min?: number;
  readonly max?: number;
  readonly choices?: readonly string[];
  /** As it would be written in TOML; undefined: none. */
  readonly default?: string;
  /** How the default is described where it is no value. */
  readonly absent?: string;
  /** The option of `tsvmm run` and `create`. */
  readonly option?: string;
  /** False: of the host alone; a bundle cannot set it. */
  readonly annotation: boolean;
  /** False: in the file only. */
  readonly variable: boolean;
  readonly doc: string;
}

export const KEYS = {
  kernel: {
    type: 'path',
    absent: "tsvmm's own",
    option: '--kernel',
    annotation: true,
    variable: true,
    doc: "The guest's kernel: a bzImage or a vmlinux.",
  },
  initrd: {
    type: 'path',
    absent: "tsvmm's own",
    option: '--initrd',
    annotation: true,
    variable: true,
    doc: "The guest's initramfs, which has to hold tsvmm's agent.",
  },
  kernel_parameters: {
    type: 'words',
    default: '[]',
    annotation: true,
    variable: true,
    doc: "Parameters for the guest's kernel, after tsvmm's own. Those of all sources are given, the weakest source's first, since the kernel heeds the last of two.",
  },
  memory: {
    type: 'size',
    min: 64 * 2 ** 20,
    default: '"256M"',
    option: '--memory',
    annotation: true,
    variable: true,
    doc: "A machine's memory. In this file and in TSVMM_MEMORY: that of a machine whose bundle says nothing, not even by a memory limit.",
  },
  memory_overhead: {
    type: 'size',
    min: 32 * 2 ** 20,
    default: '"64M"',
    annotation: true,
    variable: true,
    doc: "What a machine has beyond its container's memory limit: for the guest's kernel, the agent, page tables.",
  },
  vcpus: {
    type: 'integer',
    min: 1,
    max: 254,
    default: '1',
    option: '--cpus',
    annotation: true,
    variable: true,
    doc: "A machine's processors. In this file and in TSVMM_VCPUS: those of a machine whose bundle says nothing, not even by a cpu quota or a cpuset.",
  },
  network: {
    type: 'choice',
    choices: ['auto', 'passt', 'none'],
    default: '"auto"',
    option: '--network',
    annotation: true,
    variable: true,
    doc: 'The network where the bundle names no network namespace to join. auto: a user-mode network for run and for ordinary users, where passt is installed; passt: that, or an error; none: a loopback only.',
  },
  passt: {
    type: 'word',
    default: '"passt"',
    annotation: false,
    variable: true,
    doc: 'The program of the user-mode network, a name on the PATH or a path.',
  },
  passt_arguments: {
    type: 'words',
    default: '[]',
    annotation: false,
    variable: true,
    doc: 'More arguments for it: ["-t", "8080:80"] forwards port 8080 of the host to port 80 of the container.',
  },
  debug_console: {
    type: 'boolean',
    default: 'false',
    option: '--debug',
    annotation: true,
    variable: true,
    doc: "The guest's kernel and the agent tell all they do on the console: standard error of run, console.log of a created container.",
  },
  boot_timeout: {
    type: 'seconds',
    default: '60',
    option: '--boot-timeout',
    annotation: true,
    variable: true,
    doc: 'How many seconds the guest may take until its agent answers and the container is there.',
  },
  enable_annotations: {
    type: 'words',
    default: '["*"]',
    annotation: false,
    variable: false,
    doc: 'Which settings a bundle may make by annotations (io.tsvmm.* and those of Kata): names of this file, or "*" for all. A bundle with another one is refused.',
  },
} as const satisfies Record<string, Key>;

export type KeyName = keyof typeof KEYS;

/** What a setting's value is once it has been read. */
export type ValueOf<N extends KeyName> = (typeof KEYS)[N] extends { readonly choices: readonly (infer C)[] }
  ? C
  : Values[(typeof KEYS)[N]['type']];

interface Values {
  path: string;
  word: string;
  words: readonly string[];
  /** Bytes. */
  size: number;
  integer: number;
  seconds: number;
  boolean: boolean;
  choice: string;
}

/** The settings that one source makes. */
export type Layer = { [N in KeyName]?: ValueOf<N> };

export const KEY_NAMES = Object.keys(KEYS) as KeyName[];

export function isKey(name: string): name is KeyName {
  return Object.hasOwn(KEYS, name);
}
