import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { startTimeOf } from '../../src/runtime/state/process.js';
import type { StoredState } from '../../src/runtime/state/state.js';
import { ContainerStore, writeState } from '../../src/runtime/state/store.js';
import { sampleSpec } from './spec.js';

/** A request as a command has sent it. */
export interface Asked {
  readonly method: string;
  readonly params: unknown;
  /** The line as it came. */
  readonly line: string;
  /** Sends a line more on its connection. */
  send(message: object): void;
  /** Closes the connection. */
  end(): void;
}

/**
 * A state folder with containers whose sandbox is the test itself: commands find their files and talk to their sockets. What it
 * answers is up to `answer`.
 */
export class FakeSandboxes {
  readonly root = mkdtempSync(join(tmpdir(), 'tsvmm-state-'));
  readonly store = new ContainerStore(this.root);
  readonly asked: Asked[] = [];
  /** What a method answers; a string is an error. */
  answer: (asked: Asked) => object | string = () => ({});
  readonly #servers: Server[] = [];

  constructor(t: Test) {
    t.teardown(() => {
      for (const server of this.#servers) server.close();
      rmSync(this.root, { recursive: true });
    });
  }

  /** A container with such a state; `pid: 0` is one whose sandbox has gone. */
  async add(id: string, state: Partial<StoredState> = {}): Promise<void> {
    const { pid = process.pid } = state;
    const folder = this.store.folder(id);
    mkdirSync(folder, { recursive: true });
    writeState(folder, {
      version: 1,
      ociVersion: '1.0.2',
      id,
      status: 'running',
      bundle: `/bundles/${id}`,
      rootfs: `/bundles/${id}/rootfs`,
      created: '2026-11-24T10:00:00.123456789Z',
      owner: 'root',
      annotations: { 'org.example': 'x' },
      machine: { memory: 256 << 20, cpus: 2 },
      transient: false,
      cgroups: [],
      network: null,
      ...state,
      pid: pid === 0 ? 2 ** 22 : pid,
      startTime: startTimeOf(pid) ?? '1',
    });
    writeFileSync(join(folder, 'config.json'), JSON.stringify(sampleSpec()));
    const server = createServer((socket) => this.#serve(socket));
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(this.store.socketPath(id), resolve));
  }

  #serve(socket: Socket): void {
    let rest = '';
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const { id, method, params } = JSON.parse(line) as { id: unknown; method: string; params: unknown };
        const send = (message: object): void => {
          socket.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
        };
        const asked = { method, params, line, send, end: () => socket.end() };
        this.asked.push(asked);
        if (id === undefined) continue;
        const answer = this.answer(asked);
        send(
          typeof answer === 'string' ? { id, error: { code: 1, message: answer } } : { id, result: answer },
        );
      }
    });
  }
}
