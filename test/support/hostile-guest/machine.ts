/** The machine of the suite: one device of each kind, as the product describes them. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { addon, type NativeConsole } from '../../../src/addon/index.js';
import type { GuestMemory } from '../../../src/memory/guest-memory.js';
import { type Balloon, describeBalloon } from '../../../src/virtio/balloon/index.js';
import { type BlkOptions, describeBlk } from '../../../src/virtio/blk/index.js';
import { type ConsolePort, describeConsole } from '../../../src/virtio/console/index.js';
import { describeFs, type FsOptions } from '../../../src/virtio/fs/index.js';
import { describeNet } from '../../../src/virtio/net/index.js';
import { describeRng } from '../../../src/virtio/rng/index.js';
import { describeScriptDevice, type ScriptVirtioDevice } from '../../../src/virtio/script-device.js';
import { describeVsock, type Vsock } from '../../../src/virtio/vsock/index.js';
import { Bench, watch } from './cases.js';
import { sector } from './probes.js';
import { RAM, type RigOptions } from './rig.js';

/** Sectors of the disks. */
export const SECTORS = 256;

export interface FullBench extends Bench {
  /** Takes the machine down. */
  close(): void;
  /** The same as the file's last test: nothing stays behind. */
  end(): void;
  readonly folder: string;
  readonly disk: string;
  readonly share: string;
  readonly vsock: Vsock;
  readonly balloon: Balloon;
  /** Of the console with several ports: `ports`, `one`, `two`. */
  readonly ports: ReadonlyMap<string, ConsolePort>;
  /** What the network card is connected to: frames, each behind its length in 32 bits, big-endian. */
  readonly peer: Socket;
  /** Its one port is 0. */
  readonly console: NativeConsole;
  /** What the guest has printed. */
  readonly output: Buffer[];
}

/** Gives back what it is sent. */
export const echo: ScriptVirtioDevice = {
  name: 'script',
  deviceId: 42,
  queueSizes: [64],
  config: new Uint8Array(8),
  serve(chain) {
    chain.write(chain.read(Math.min(chain.readableSize, 1 << 16)));
  },
};

export interface FullOptions extends Omit<RigOptions, 'describe'> {
  readonly script?: ScriptVirtioDevice;
  /** Where its disks and its share are made; the system's temporary folder by default. */
  readonly folder?: string;
  /** What differs from the usual in the share and in the writable disk. */
  readonly fs?: Partial<FsOptions>;
  readonly blk?: Partial<BlkOptions>;
}

/** A machine with a writable and a read-only disk, a share, a socket device, a console, one with several
 * ports, an entropy source, a balloon, a network card and `script`. */
export async function fullBench(options: FullOptions = {}): Promise<FullBench> {
  const folder = mkdtempSync(join(options.folder ?? tmpdir(), 'tsvmm-hostile-'));
  const closings: (() => void)[] = [];
  const close = (): void => {
    bench.rig.close();
    for (const each of closings) each();
    rmSync(folder, { recursive: true, force: true });
  };
  const end = (): void => {
    t.test('the machine ends and leaves nothing', async (t) => {
      const done = watch('the end');
      close();
      done();
      t.same(descriptors(), [], 'no descriptor of KVM or of a disk is left');
    });
  };

  const disk = join(folder, 'disk');
  const content = Buffer.concat(Array.from({ length: SECTORS }, (_, n) => sector(n)));
  writeFileSync(disk, content);
  writeFileSync(join(folder, 'read-only'), content);
  const share = join(folder, 'share');
  mkdirSync(join(share, 'dir'), { recursive: true });
  writeFileSync(join(share, 'file'), 'content');
  writeFileSync(join(folder, 'secret'), 'secret');
  symlinkSync('../secret', join(share, 'link'));

  const output: Buffer[] = [];
  const { vsock, description: vsockDescription } = describeVsock({ name: 'vsock' });
  const terminal = { name: '', console: true, columns: 0, rows: 0 };
  const console = addon().createVirtioConsole({
    ports: [{ ...terminal, input: () => {}, output: (chunk) => void output.push(chunk) }],
    onChange: () => {},
  });
  const { balloon, ...balloonDevice } = describeBalloon({ name: 'balloon', memory: RAM.size });
  const ports = describeConsole({
    name: 'ports',
    terminal: {},
    ports: [{ name: 'one', console: true }, { name: 'two' }],
  });
  const [ours, peer] = await socketPair(join(folder, 'socket'));
  const nic = await describeNet({ name: 'net', streamFd: descriptorOf(ours) });
  ours.destroy(); // the device has a descriptor of its own
  const describe = (memory: () => GuestMemory) => {
    const disks = [
      describeBlk({ name: 'blk', path: disk, id: 'hostile', ...options.blk }),
      describeBlk({ name: 'read-only', path: join(folder, 'read-only'), readOnly: true }),
    ];
    for (const each of disks) closings.push(() => each.close());
    closings.push(
      () => vsock.close(),
      () => nic.close(),
      () => peer.destroy(),
    );
    return [
      ...disks.map(({ description }) => description),
      describeFs({ name: 'fs', tag: 'share', directory: share, ...options.fs }),
      vsockDescription,
      { ...describeConsole({ name: 'console', terminal: {} }).description, backend: console },
      describeRng({ name: 'rng' }),
      balloonDevice.description,
      ports.description,
      nic.description,
      describeScriptDevice(options.script ?? echo, memory),
    ];
  };
  const bench = new Bench(describe, options);
  await bench.start();
  return Object.assign(bench, {
    close,
    end,
    folder,
    disk,
    share,
    vsock,
    balloon,
    ports: ports.ports,
    peer,
    console,
    output,
  });
}

/** Two ends of a stream. */
async function socketPair(path: string): Promise<[Socket, Socket]> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const ours = connect(path);
  await new Promise<void>((resolve) => ours.once('connect', resolve));
  const peer = await accepted;
  peer.on('error', () => {}).resume();
  server.close();
  return [ours, peer];
}

function descriptorOf(socket: Socket): number {
  const { _handle } = socket as unknown as { readonly _handle: { readonly fd: number } };
  return _handle.fd;
}

/** What this process has open of KVM and of the disks; the rest goes with JavaScript's garbage. */
function descriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ''; // the folder itself
      }
    })
    .filter((target) => /kvm|\/(disk|read-only)$/.test(target));
}
