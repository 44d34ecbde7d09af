import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { addon } from '../addon/index.js';
import { Machine } from '../machine/machine.js';
import type { Timeline } from '../machine/timeline.js';
import { type Bundle, checkId, loadBundle } from './bundle.js';
import { resolveSettings, type SettingFlags, type Settings } from './config/settings.js';
import { ConsoleLog } from './console-log.js';
import { lockContainerId } from './container-lock.js';
import { reasonOfErrno, UserError } from './errors.js';
import { type GuestConfig, guestConfig } from './guest-config.js';
import { runHooks, runPoststopHooks } from './hooks.js';
import {
  cgroupFolders,
  currentCgroups,
  enterCgroups,
  limitCgroups,
  ownCgroup,
  removeCgroups,
  returnToCgroups,
} from './host-cgroup.js';
import { enterHostname } from './hostname.js';
import { containerParams, machineConfig } from './machine-config.js';
import { type Attached, attachNetwork } from './network/attach.js';
import type { NetworkSet } from './network/guest-network.js';
import { setGuestNetwork } from './network/guest-spec.js';
import { joinNetwork } from './network/join.js';
import { type NetworkPlan, planNetwork } from './network/plan.js';
import { namespaceResolver, RESOLVER_PORT, serveResolver } from './network/resolver.js';
import { hostUser } from './owners.js';
import { writePidFile } from './pid-file.js';
import { listenVariables } from './preserved-fds.js';
import { ContainerControl } from './sandbox/container-control.js';
import { MachineFailed, Sandbox, type SandboxStreams } from './sandbox/sandbox.js';
import { sizeMachine } from './sizing.js';
import type { HookName } from './spec/types.js';
import { startTimeOf } from './state/process.js';
import { type ContainerStatus, ociState, type StoredState } from './state/state.js';
import { CONFIG_FILE, CONTROL_SOCKET, ContainerStore, writeState } from './state/store.js';
import { ownPid } from './user-namespace.js';

/** As runc: the user to whom the state belongs. */
function ownerName(): string {
  try {
    return userInfo().username;
  } catch {
    // A user whom no file names.
    return String(process.geteuid?.() ?? '');
  }
}

export interface ContainerOptions {
  /** The folder of all containers' states. */
  readonly root: string;
  readonly id: string;
  /** The bundle's folder. */
  readonly bundle: string;
  /** Its configuration's file, from there; undefined: config.json. */
  readonly config?: string | undefined;
  /** `run`: in the command's own process. */
  readonly command: 'run' | 'create';
  /** Gone with its process. */
  readonly transient: boolean;
  /** What the command line asks for. */
  readonly flags: SettingFlags;
  /** Descriptors that the process gets as 3, 4, ... */
  readonly preserved: readonly number[];
  readonly timeline?: Timeline | undefined;
  /** The standard streams of the process, given whether it has a terminal. */
  readonly streams: (terminal: boolean) => SandboxStreams;
  /** The terminal's first size, where it is known. */
  readonly terminalSize?: (() => { readonly rows: number; readonly columns: number } | undefined) | undefined;
  readonly log: (level: 'warning' | 'error', message: string) => void;
}

/** A machine that failed: the message for one line, and the end of what its console said. */
export class RunError extends UserError {
  constructor(
    message: string,
    readonly consoleLines: readonly string[] = [],
  ) {
    super(message);
  }
}

/** Those that run before the process is there, in the order of the specification. */
const CREATE_HOOKS = ['prestart', 'createRuntime', 'createContainer'] as const;

/** How much of a failed guest's console is shown: a panic's own lines and what was before. */
const CONSOLE_LINES = 30;

/** A container on this host while its sandbox lives, in the process that is the sandbox. */
export class Container {
  readonly store: ContainerStore;
  readonly #undo: (() => void)[] = [];
  #state: StoredState;
  /** Where the state is written to: relative once the process has its own view of the files. */
  #folder: string;
  #log: ConsoleLog | undefined;
  #control: ContainerControl | undefined;
  #machine: Machine | undefined;
  #sandbox: Sandbox | undefined;
  #attached: Attached | undefined;

  private constructor(
    readonly options: ContainerOptions,
    readonly bundle: Bundle,
    readonly guest: GuestConfig,
    readonly settings: Settings,
  ) {
    const { root, id } = options;
    const { spec, directory } = bundle;
    this.store = new ContainerStore(root);
    this.#folder = this.store.folder(id);
    this.#state = {
      version: 1,
      ociVersion: spec.ociVersion,
      id,
      pid: ownPid(),
      startTime: startTimeOf(ownPid()) ?? '',
      status: 'creating',
      bundle: directory,
      rootfs: bundle.root.type === 'directory' ? bundle.root.directory : bundle.root.path,
      created: new Date().toISOString(),
      owner: ownerName(),
      annotations: spec.annotations ?? {},
      machine: sizeMachine(spec, settings),
      transient: options.transient,
      cgroups: [],
      network: null,
    };
  }

  /**
   * Claims the ID, runs the hooks of the creation, and builds the machine; nothing runs yet. What fails leaves nothing behind.
   * @throws UserError
   */
  static async open(options: ContainerOptions): Promise<Container> {
    checkId(options.id);
    const bundle = loadBundle(options.bundle, options.config);
    const guest = guestConfig(bundle.spec, options.id, bundle.directory, hostUser());
    const settings = resolveSettings({ flags: options.flags, spec: bundle.spec });
    const warnings = [...guest.warnings, ...settings.warnings];
    for (const warning of warnings) options.log('warning', `config.json: ${warning}`);
    const container = new Container(options, bundle, guest, settings);
    lockContainerId(options.root, options.id);
    container.store.claim(options.id);
    container.#undo.push(() => container.#removeFolder());
    options.timeline?.mark('bundle');
    try {
      await container.#prepare();
    } catch (error) {
      throw await container.fail(error);
    }
    return container;
  }

  get sandbox(): Sandbox {
    if (this.#sandbox === undefined) throw new Error('the sandbox is not built');
    return this.#sandbox;
  }

  get machine(): Machine {
    if (this.#machine === undefined) throw new Error('the machine is not built');
    return this.#machine;
  }

  /** Of the sandbox, in ticks since the host's boot. */
  get startTime(): string {
    return this.#state.startTime;
  }

  get status(): ContainerStatus {
    return this.#state.status;
  }

  setStatus(status: ContainerStatus): void {
    this.#change({ status });
  }

  /** What hooks get. */
  ociState(status: ContainerStatus): object {
    return ociState({ ...this.#state, status });
  }

  /** For the sandbox's messages, which the container's own streams must not have. */
  logLine(line: string): void {
    this.#log?.line(line);
  }

  /** From now on the state's folder is this thread's working folder. */
  stateIsHere(): void {
    this.#folder = '.';
  }

  /** The end of `run`, or of a creation that failed: undoes all that open() did. */
  close(): void {
    this.#control?.close();
    for (const undo of this.#undo.splice(0).reverse()) undo();
  }

  /** The machine has ended; what else is left is for `delete` to remove. */
  leaveNetwork(): void {
    this.#attached?.close();
  }

  /** What a failure is to be told as, with everything undone. */
  async fail(error: unknown): Promise<unknown> {
    this.#machine?.close();
    const lines = (await this.#log?.lastLines(CONSOLE_LINES)) ?? [];
    this.close();
    if (!(error instanceof MachineFailed)) return error;
    const { id, command } = this.options;
    // Where this thread has the container's view, the way to the others' folder is from its own.
    const store = this.#folder === '.' ? new ContainerStore('..') : this.store;
    const kept = store.keepFailedLog(id, [...lines, `tsvmm: ${error.message}`, ''].join('\n'));
    const where = !kept || command === 'run' ? '' : ` (the guest's console: ${this.store.failedLogPath(id)})`;
    return new RunError(`${error.message}${where}`, lines);
  }

  /** The machine of a container that was created has failed: why goes to its state, and to its log behind what its console said. */
  async keepFailure(message: string): Promise<void> {
    await this.#log?.lastLines(0);
    this.logLine(message);
    this.#change({ failure: message });
  }

  async #prepare(): Promise<void> {
    const { options, bundle, store, settings } = this;
    const { id } = options;
    this.#change({ status: 'creating' });
    writeFileSync(`${this.#folder}/${CONFIG_FILE}`, bundle.text, { mode: 0o600 });
    this.#enterCgroups();
    const spec = this.guest.spec;
    const attached = await this.#setUpNetwork();
    // After the hooks of the creation, which run in the host's UTS namespace.
    enterHostname(bundle.spec, spec);
    const listen = listenVariables();
    if (listen.length > 0) spec.process.env = [...(spec.process.env ?? []), ...listen];
    const terminal = spec.process.terminal === true;
    const size = terminal ? options.terminalSize?.() : undefined;
    if (size !== undefined) spec.process.consoleSize = { height: size.rows, width: size.columns };
    // The standard error of a created container is its process's.
    const shown = settings.debugConsole && options.command === 'run';
    if (!shown) {
      const file = openSync(store.logPath(id), 'w', 0o600);
      this.#undo.push(() => closeSync(file));
      this.#log = new ConsoleLog(file);
    }
    const machine = await Machine.create(
      machineConfig(bundle, this.guest, {
        kernel: settings.kernel,
        initrd: settings.initrd,
        kernelParameters: settings.kernelParameters,
        size: this.#state.machine,
        networks: attached.networks,
        consoleFd: this.#log?.fd ?? 2,
        debug: settings.debugConsole,
        timeline: options.timeline,
        log: (line) => (shown ? options.log('warning', line) : this.logLine(line)),
      }),
    );
    this.#machine = machine;
    const resolver = this.#serveResolver(machine, attached);
    const { exports } = this.guest;
    this.#sandbox = new Sandbox({
      id,
      machine,
      params: containerParams(id, bundle, this.guest),
      program: spec.process.args[0] ?? '',
      digits: bundle.digits,
      network: resolver === undefined ? attached.guest : { ...attached.guest, resolver },
      streams: options.streams(terminal),
      preserved: options.preserved,
      writable: spec.root.readonly !== true || exports.some(({ readOnly }) => !readOnly),
      bootTimeout: settings.bootTimeout,
      debug: settings.debugConsole,
      log: options.log,
      timeline: options.timeline,
      onOom: () => this.#control?.oom(),
    });
  }

  /** The process runs. */
  started(pidFile?: string): void {
    if (pidFile !== undefined) writePidFile(pidFile, process.pid);
    if (this.#state.status === 'creating' || this.#state.status === 'created') this.setStatus('running');
  }

  /** @throws UserError that names the hook that failed */
  async runHooks(name: HookName, status: ContainerStatus): Promise<void> {
    const hooks = this.bundle.spec.hooks?.[name];
    await runHooks(name, hooks, this.ociState(status), this.bundle.directory);
  }

  /**
   * Hooks of the creation. Those of the container's namespaces begin in its root file system, as runc's do.
   * @param host descriptors of the host's namespaces, where this thread has left them
   */
  async #runCreateHooks(host: readonly number[]): Promise<void> {
    const { hooks = {} } = this.bundle.spec;
    const { root, directory } = this.bundle;
    const rootfs = root.type === 'directory' ? root.directory : directory;
    const state = this.ociState('creating');
    await runHooks('prestart', hooks.prestart, state, directory, host);
    await runHooks('createRuntime', hooks.createRuntime, state, directory, host);
    await runHooks('createContainer', hooks.createContainer, state, rootfs);
  }

  /**
   * What hooks of the creation mount, by the container's process ID or in its namespace, is the container's alone: its machine's shares
   * are of a mount namespace that ends with this process. Returns a descriptor of the host's.
   */
  #separateMounts(): number | undefined {
    if (process.geteuid?.() !== 0) return undefined;
    const host = addon().separateMounts();
    if (host < 0) {
      throw new UserError(`a mount namespace for the hooks cannot be made: ${reasonOfErrno(host)}`);
    }
    // Without it the mounts would go when this thread takes on the container's view.
    const own = openSync('/proc/thread-self/ns/mnt', 'r');
    this.#undo.push(() => closeSync(own));
    return host;
  }

  async runPoststopHooks(): Promise<void> {
    const { bundle, options } = this;
    const { poststop } = bundle.spec.hooks ?? {};
    await runPoststopHooks(poststop, this.ociState('stopped'), bundle.directory, (message) =>
      options.log('warning', message),
    );
  }

  /** Holds the machine to what the container may have, once it has booted. */
  limit(): void {
    limitCgroups(this.#state.cgroups, this.bundle.spec.linux?.resources ?? {});
  }

  /** Opens the sandbox to the other commands. */
  listen(): void {
    this.#control = new ContainerControl(this, `${this.#folder}/${CONTROL_SOCKET}`);
  }

  /** Removes what other `run`s have left that were killed. */
  sweep(): void {
    try {
      this.store.sweep((id) => lockContainerId(this.options.root, id));
    } catch {
      // A state that cannot be read is another's; who asks for that container is told.
    }
  }

  #removeFolder(): void {
    const { id } = this.options;
    if (this.#folder === '.') rmSync(`../${id}`, { recursive: true, force: true });
    else this.store.remove(id);
  }

  #enterCgroups(): void {
    const { options, bundle } = this;
    const own = options.command === 'create' ? ownCgroup(options.id) : '';
    const folders = cgroupFolders(bundle.spec.linux?.cgroupsPath || own);
    const before = folders.length > 0 ? currentCgroups() : [];
    const cgroups = enterCgroups(folders, process.pid, (message) => options.log('warning', message));
    if (cgroups.length > 0) this.#change({ cgroups });
    this.#undo.push(() => {
      returnToCgroups(before, process.pid);
      removeCgroups(cgroups);
    });
  }

  /** Hooks of the creation run once there is the network namespace: some bring its interfaces. */
  async #setUpNetwork(): Promise<Attached> {
    const { options, bundle, settings } = this;
    const rootless = process.geteuid?.() !== 0;
    const plan = planNetwork({ spec: bundle.spec, settings, rootless, command: options.command });
    const { hooks = {} } = bundle.spec;
    const hooked = CREATE_HOOKS.some((name) => (hooks[name]?.length ?? 0) > 0);
    // A namespace that nobody can put anything into need not be made.
    const needed = plan.kind !== 'own' || hooked || options.command === 'create';
    const made: NetworkPlan = needed ? plan : { kind: 'none' };
    const mounts = hooked ? this.#separateMounts() : undefined;
    const host = [joinNetwork(made), mounts].filter((fd) => fd !== undefined);
    try {
      if (hooked) await this.#runCreateHooks(host);
    } finally {
      for (const fd of host) closeSync(fd);
    }
    const attached = attachNetwork(made);
    this.#attached = attached;
    this.#undo.push(() => attached.close());
    for (const warning of attached.warnings) options.log('warning', warning);
    if (attached.cleanup !== undefined) this.#change({ network: attached.cleanup });
    setGuestNetwork(
      this.guest.spec,
      attached,
      bundle.root.type === 'directory' ? bundle.root.directory : undefined,
    );
    return attached;
  }

  /** A name server on the namespace's loopback, which hooks may have made, is one on the guest's. */
  #serveResolver(machine: Machine, attached: Attached): NetworkSet['resolver'] {
    const { spec, directory } = this.bundle;
    if (attached.guest === undefined || attached.guest.resolvConf !== undefined) return undefined;
    const address = namespaceResolver(spec, directory);
    if (address === undefined) return undefined;
    serveResolver(machine.vsock, address, (message) => this.options.log('warning', message));
    return { address, port: RESOLVER_PORT };
  }

  #change(change: Partial<StoredState>): void {
    this.#state = { ...this.#state, ...change };
    writeState(this.#folder, this.#state);
  }
}
