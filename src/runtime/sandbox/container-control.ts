import type { Container } from '../container.js';
import { UserError } from '../errors.js';
import type { Resources } from '../spec/types.js';
import { type ControlHandlers, ControlService } from './control.js';
import { closeAll, type Exec, type ExecRequest } from './execs.js';

const SIGKILL = 9;
/** How long a container that was killed may take to end, before its machine is stopped. */
const STOP_MS = 10_000;

/** What the commands ask of a container, by its state. */
export class ContainerControl implements ControlHandlers {
  readonly #service: ControlService;
  /** Execs that wait for the container to be resumed. */
  #waiting: (() => void)[] = [];

  constructor(
    private readonly container: Container,
    socket: string,
  ) {
    this.#service = new ControlService(socket, this);
  }

  close(): void {
    this.#service.close();
  }

  /** The kernel has killed a process of the container for want of memory. */
  oom(): void {
    this.#service.event({ type: 'oom', id: this.container.options.id });
  }

  async start(): Promise<object> {
    const { container } = this;
    if (container.status !== 'created') {
      throw new UserError(`cannot start a container that is ${container.status}`);
    }
    // From here a second one is refused.
    container.setStatus('running');
    try {
      await container.sandbox.start();
    } catch (error) {
      // What cannot be started will never run.
      await this.stop();
      throw error;
    }
    return {};
  }

  async kill(signal: number, all: boolean): Promise<object> {
    this.#mustBeAlive();
    // kill(2): only whether there is somebody.
    if (signal === 0) return {};
    const { sandbox, options } = this.container;
    await sandbox.ask(sandbox.agent.kill(options.id, signal, { all }));
    return {};
  }

  async pause(): Promise<object> {
    const { container } = this;
    if (container.status !== 'running' && container.status !== 'created') {
      throw new UserError(`container not running: it is ${container.status}`);
    }
    await container.sandbox.ask(container.sandbox.agent.pause(container.options.id));
    if (container.status === 'running') container.setStatus('paused');
    return {};
  }

  async resume(): Promise<object> {
    const { container } = this;
    if (container.status !== 'paused') throw new UserError(`container not paused: it is ${container.status}`);
    await container.sandbox.ask(container.sandbox.agent.resume(container.options.id));
    if (container.status === 'paused') container.setStatus('running');
    for (const goOn of this.#waiting.splice(0)) goOn();
    return {};
  }

  async update(resources: Resources, digits: ReadonlyMap<number, string>): Promise<object> {
    this.#mustBeAlive();
    const { sandbox, options } = this.container;
    await sandbox.ask(sandbox.agent.update(options.id, resources, digits));
    return {};
  }

  async processes(): Promise<object> {
    this.#mustBeAlive();
    const { sandbox, options } = this.container;
    return { processes: await sandbox.ask(sandbox.agent.processes(options.id)) };
  }

  async stats(): Promise<object> {
    this.#mustBeAlive();
    const { sandbox, options } = this.container;
    return await sandbox.ask(sandbox.agent.stats(options.id));
  }

  async stop(): Promise<object> {
    const { sandbox, options } = this.container;
    setTimeout(() => sandbox.stop(), STOP_MS).unref();
    if (sandbox.phase === 'created' || sandbox.phase === 'running') {
      sandbox.agent.kill(options.id, SIGKILL, { all: true }).catch(() => sandbox.stop());
    } else if (sandbox.phase !== 'exited') {
      sandbox.stop();
    }
    return {};
  }

  async exec(request: ExecRequest): Promise<Exec> {
    const { container } = this;
    const allowed = container.status === 'paused' && request.ignorePaused;
    if (container.status !== 'running' && container.status !== 'created' && !allowed) {
      const what = container.status === 'paused' ? 'a paused' : 'a stopped';
      closeAll(request.fds);
      throw new UserError(`cannot exec in ${what} container`);
    }
    if (allowed) {
      // The guest starts nothing in a frozen control group. A container that ends meanwhile refuses by itself.
      const resumed = new Promise<void>((resolve) => this.#waiting.push(resolve));
      await Promise.race([resumed, container.sandbox.ended.catch(() => {})]);
    }
    return container.sandbox.ask(container.sandbox.execs.start(request), request.process.args?.[0]);
  }

  #mustBeAlive(): void {
    const { phase } = this.container.sandbox;
    if (phase !== 'created' && phase !== 'running') throw new UserError('container not running');
  }
}
