/** The commands that are measured: tsvmm, and the other monitors that are on the PATH. */
import { accessSync, constants, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { packageRoot } from '../src/addon/index.js';
import { appended, commandLine, type Inputs, MEMORY_MIB, type Then } from './inputs.js';

export interface Contender {
  readonly name: string;
  /** What its guest does in the end, where it can: Firecracker's has no power switch, but a reset button. */
  readonly ending: Then;
  command(then: Then): readonly string[];
}

export const TSVMM = [process.execPath, join(packageRoot(), 'dist/tsvmm.cjs')] as const;
const MEMORY = `${MEMORY_MIB}M`;

export function tsvmmBoot(
  kernel: string,
  initrd: string,
  more: readonly string[] = [],
): (then: Then) => string[] {
  const options = ['--memory', MEMORY, '--cpus', '1', '--initrd', initrd, ...more];
  return (then) => [...TSVMM, 'boot', ...options, '--append', appended(then), kernel];
}

export function tsvmmRun(bundle: string, more: readonly string[] = []): string[] {
  return [...TSVMM, 'run', '--memory', MEMORY, '--cpus', '1', ...more, '--bundle', bundle];
}

/** @param scratch a folder for configuration files */
export function bootContenders(inputs: Inputs, scratch: string): Contender[] {
  const { bzImage, vmlinux, initrd } = inputs;
  const found: Contender[] = [
    { name: 'tsvmm boot, bzImage', ending: 'poweroff', command: tsvmmBoot(bzImage, initrd) },
    { name: 'tsvmm boot, vmlinux', ending: 'poweroff', command: tsvmmBoot(vmlinux, initrd) },
  ];
  const qemu = which('qemu-system-x86_64');
  if (qemu !== undefined) {
    for (const [kind, kernel] of Object.entries({ bzImage, vmlinux })) {
      found.push({
        name: `QEMU microvm, ${kind}`,
        ending: 'poweroff',
        command: (then) => qemuMicrovm(qemu, kernel, initrd, then),
      });
    }
  }
  const firecracker = which('firecracker');
  if (firecracker !== undefined) {
    found.push({
      name: 'Firecracker, vmlinux',
      ending: 'reboot',
      command: (then) => {
        const config = join(scratch, `firecracker-${then}.json`);
        const source = { kernel_image_path: vmlinux, initrd_path: initrd, boot_args: commandLine(then) };
        const machine = { vcpu_count: 1, mem_size_mib: MEMORY_MIB };
        writeFileSync(
          config,
          JSON.stringify({ 'boot-source': source, 'machine-config': machine, drives: [] }),
        );
        return [firecracker, '--no-api', '--config-file', config];
      },
    });
  }
  const cloudHypervisor = which('cloud-hypervisor');
  if (cloudHypervisor !== undefined) {
    found.push({
      name: 'Cloud Hypervisor, vmlinux',
      ending: 'poweroff',
      command: (then) => [
        cloudHypervisor,
        ...['--kernel', vmlinux, '--initramfs', initrd, '--cmdline', commandLine(then)],
        ...['--cpus', 'boot=1', '--memory', `size=${MEMORY}`, '--serial', 'tty', '--console', 'off'],
      ],
    });
  }
  return found;
}

function qemuMicrovm(qemu: string, kernel: string, initrd: string, then: Then): string[] {
  return [
    qemu,
    ...[
      '-M',
      'microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=off',
      '-enable-kvm',
      '-cpu',
      'host',
    ],
    ...[
      '-m',
      String(MEMORY_MIB),
      '-smp',
      '1',
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
      '-no-reboot',
    ],
    ...['-serial', 'stdio', '-kernel', kernel, '-initrd', initrd, '-append', commandLine(then)],
  ];
}

export function which(program: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, program);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {} // not there
  }
  return undefined;
}
