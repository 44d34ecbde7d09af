/** What the bench of the devices runs: the guest's program as an initramfs, and its peer on the host. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../src/addon/index.js';
import { S_IFDIR, S_IFREG, writeCpio } from '../src/boot/cpio.js';
import { folderOfInputs } from './inputs.js';

/** Megabytes of the guest. */
export const DEVICE_MEMORY_MIB = 256;

const S_IFCHR = 0o020000;
const FLAGS = ['-std=c++20', '-O2', '-Wall', '-Wextra', '-static'];

export interface DeviceInputs {
  readonly initrd: string;
  readonly peer: string;
}

export function deviceInputs(): DeviceInputs {
  const folder = folderOfInputs();
  return { initrd: join(folder, 'devices.cpio'), peer: join(folder, 'peer') };
}

/** Compiles both with g++ and writes the initramfs; before a machine that cannot write there is started. */
export function makeDeviceInputs(): void {
  const source = join(packageRoot(), 'bench');
  const folder = folderOfInputs();
  const { initrd, peer } = deviceInputs();
  const guest = join(folder, 'device-bench');
  mkdirSync(folder, { recursive: true });
  const compile = (files: readonly string[], output: string): void => {
    execFileSync('g++', [...FLAGS, ...files, '-o', output], { stdio: 'inherit' });
  };
  const files = readdirSync(join(source, 'guest')).filter((name) => name.endsWith('.cc'));
  compile(
    files.map((name) => join(source, 'guest', name)),
    guest,
  );
  compile([join(source, 'peer.cc')], peer);
  const archive = writeCpio([
    { path: 'dev', mode: 0o755 | S_IFDIR },
    { path: 'dev/console', mode: 0o600 | S_IFCHR, device: [5, 1] },
    { path: 'init', mode: 0o755 | S_IFREG, data: readFileSync(guest) },
  ]);
  writeFileSync(initrd, archive);
}
