/** What all contenders run: one kernel, one initramfs, one command line; and a bundle for `tsvmm run`. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../src/addon/index.js';
import { S_IFDIR, S_IFREG, writeCpio } from '../src/boot/cpio.js';
import { openKernel } from '../src/boot/kernel.js';
import { defaultCommandLine } from '../src/machine/defaults.js';

/** The line that the guest's first program prints first. */
export const HELLO = 'hello from user space';

/** Megabytes of the guest. */
export const MEMORY_MIB = 128;

/** What the guest's init does after its line; it is told so by the last word of the command line. */
export type Then = 'poweroff' | 'reboot' | 'stay';

const S_IFCHR = 0o020000;
const INIT = `#!/bin/busybox sh
echo ${HELLO}
case "$1" in
  stay) exec /bin/busybox sleep 1000000 ;;
  *) exec /bin/busybox "$1" -f ;;
esac
`;

export interface Inputs {
  readonly bzImage: string;
  /** The same kernel, unpacked. */
  readonly vmlinux: string;
  /** Busybox and the init above. */
  readonly initrd: string;
  /** Prints the line and ends. */
  readonly bundle: string;
  /** Prints the line and stays. */
  readonly stayingBundle: string;
}

/** The command line: what tsvmm itself would say, `quiet`, and what init is to do. */
export function commandLine(then: Then): string {
  return `${kernelParameters()} ${appended(then)}`;
}

/** The part of it that tsvmm says itself. */
export function kernelParameters(): string {
  return defaultCommandLine({ memory: 0, cpus: 1, kernel: { path: '' }, serial: {} }).join(' ');
}

/** The part of it that tsvmm has to be told. */
export function appended(then: Then): string {
  return `quiet ${then}`;
}

export function folderOfInputs(): string {
  return join(packageRoot(), 'out/bench');
}

/** Makes initramfs and bundles in out/bench; before a machine that cannot write there is started. */
export function makeInputs(): void {
  const folder = folderOfInputs();
  const rootfs = join(folder, 'rootfs');
  mkdirSync(folder, { recursive: true });
  const program = 0o755 | S_IFREG;
  const initrd = writeCpio([
    { path: 'bin', mode: 0o755 | S_IFDIR },
    { path: 'bin/busybox', mode: program, data: readFileSync('/bin/busybox') },
    { path: 'dev', mode: 0o755 | S_IFDIR },
    { path: 'dev/console', mode: 0o600 | S_IFCHR, device: [5, 1] },
    { path: 'init', mode: program, data: Buffer.from(INIT) },
  ]);
  writeFileSync(join(folder, 'initramfs.cpio'), initrd);
  if (!existsSync(join(rootfs, 'bin/sh'))) {
    execFileSync('bash', [join(packageRoot(), 'guest/rootfs/make.sh'), rootfs], { stdio: 'inherit' });
  }
  makeBundle('hello', ['/bin/echo', HELLO], rootfs);
  makeBundle('staying', ['/bin/sh', '-c', `echo ${HELLO}; exec sleep 1000000`], rootfs);
}

/** The example's bundle, with another process. */
function makeBundle(name: string, args: readonly string[], rootfs: string): void {
  const example = join(packageRoot(), 'examples/bundles/hello/config.json');
  const spec = JSON.parse(readFileSync(example, 'utf8')) as { process: object };
  const changed = { ...spec, process: { ...spec.process, args }, root: { path: rootfs, readonly: true } };
  const bundle = join(folderOfInputs(), name);
  mkdirSync(bundle, { recursive: true });
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(changed, undefined, 2));
}

/** Where they are. Unpacks the kernel into tsvmm's cache, if it is not there. */
export async function findInputs(): Promise<Inputs> {
  const folder = folderOfInputs();
  const bzImage = process.env.TSVMM_KERNEL ?? join(packageRoot(), 'guest/out/bzImage');
  const { source } = await openKernel(bzImage);
  if (!('path' in source)) throw new Error("the unpacked kernel is not in tsvmm's cache");
  return {
    bzImage,
    vmlinux: source.path,
    initrd: join(folder, 'initramfs.cpio'),
    bundle: join(folder, 'hello'),
    stayingBundle: join(folder, 'staying'),
  };
}
