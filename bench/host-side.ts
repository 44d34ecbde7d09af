/**
 * The host's side of the bench of the devices: a disk, a tap, a shared folder, and the peer. All of it lives in
 * namespaces that end with the benchmark (see scripts/bench.mjs), so that nothing is left behind.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const DEVICES = ['blk', 'net', 'vsock', 'fs'] as const;
export type Device = (typeof DEVICES)[number];

export function isDevice(word: string): word is Device {
  return (DEVICES as readonly string[]).includes(word);
}

/** Entries of each folder that the guest lists. */
export const ENTRIES = 1000;

/** How many of a device an idle machine has, so that what one costs stands out of what a heap happens to hold. */
export const COPIES = 8;

const DISK_MIB = 64;
const TAP = 'tsvmmbench';
/** The port of the peer (peer.h). */
const PORT = 1024;
const PATIENCE_MS = 60_000;

export class HostSide {
  readonly disk: string;
  readonly tap = TAP;
  /** Small disks and taps that nobody uses. */
  readonly idleDisks: readonly string[];
  readonly idleTaps = Array.from({ length: COPIES }, (_, copy) => `tsvmmidle${copy}`);
  readonly share: string;
  /** As Firecracker's convention has it: the guest's connections to port P reach the socket `vsock_P`. */
  readonly vsock: string;
  #peer: ChildProcess | undefined;
  #hasTap = false;
  readonly #daemons: ChildProcess[] = [];

  /** @param scratch a folder on a tmpfs */
  constructor(
    private readonly scratch: string,
    private readonly peerProgram: string,
  ) {
    this.disk = join(scratch, 'disk.img');
    this.idleDisks = Array.from({ length: COPIES }, (_, copy) => join(scratch, `idle-${copy}.img`));
    this.share = join(scratch, 'share');
    this.vsock = join(scratch, 'vsock');
  }

  /** Whether vhost serves vsock here: Linux has the driver, and the right to use it is there. */
  get hasVhostVsock(): boolean {
    return existsSync('/dev/vhost-vsock');
  }

  /** @param batches how many folders the guest lists */
  async prepare(device: Device, batches: number): Promise<void> {
    switch (device) {
      case 'blk':
        writeFileSync(this.disk, randomBytes(DISK_MIB << 20));
        break;
      case 'net':
        if (!this.#hasTap) this.makeTap();
        await this.startPeer(['tcp', '192.0.2.1']);
        break;
      case 'vsock': {
        const local = ['unix', `${this.vsock}_${PORT}`];
        await this.startPeer(this.hasVhostVsock ? ['vsock', ...local] : local);
        break;
      }
      case 'fs':
        this.makeShare(batches);
        break;
    }
  }

  /** For machines whose devices have nothing to do. */
  prepareIdle(): void {
    for (const disk of this.idleDisks) writeFileSync(disk, new Uint8Array(1 << 20));
    for (const tap of this.idleTaps) ip('tuntap', 'add', 'dev', tap, 'mode', 'tap', 'vnet_hdr');
    mkdirSync(this.share);
  }

  /** Starts QEMU's virtiofsd on the shared folder. Returns its socket. */
  async startVirtiofsd(program: string): Promise<string> {
    const socket = join(this.scratch, `virtiofsd-${this.#daemons.length}.sock`);
    const args = [`--socket-path=${socket}`, '-o', `source=${this.share}`, '-o', 'cache=auto'];
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#daemons.push(child);
    await until(() => existsSync(socket), `${program} has no socket`);
    return socket;
  }

  async end(): Promise<void> {
    for (const child of [this.#peer, ...this.#daemons]) {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
    this.#peer = undefined;
    this.#daemons.length = 0;
    for (const path of [this.disk, this.share, this.vsock]) rmSync(path, { recursive: true, force: true });
  }

  private makeTap(): void {
    ip('tuntap', 'add', 'dev', TAP, 'mode', 'tap', 'vnet_hdr');
    ip('addr', 'add', '192.0.2.1/24', 'dev', TAP);
    ip('link', 'set', TAP, 'up');
    this.#hasTap = true;
  }

  private makeShare(batches: number): void {
    mkdirSync(this.share);
    for (let batch = 0; batch <= batches; batch++) {
      const folder = join(this.share, `list-${batch}`);
      mkdirSync(folder);
      for (let entry = 0; entry < ENTRIES; entry++) writeFileSync(join(folder, `entry-${entry}`), '');
    }
  }

  private async startPeer(args: readonly string[]): Promise<void> {
    // Ends with its standard input, so with us.
    const child = spawn(this.peerProgram, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#peer = child;
    let output = '';
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      output += text;
    });
    await until(() => output === 'ready\n' || child.exitCode !== null, 'the peer does not listen');
    if (child.exitCode !== null) throw new Error(`the peer ended with status ${child.exitCode}`);
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: 'inherit' });
}

async function until(condition: () => boolean, otherwise: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(otherwise);
    await delay(20);
  }
}
