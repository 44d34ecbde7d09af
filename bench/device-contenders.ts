/** The monitors whose devices are measured: tsvmm, and the others that are on the PATH. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TSVMM, which } from './contenders.js';
import { DEVICE_MEMORY_MIB } from './device-inputs.js';
import { COPIES, type Device, type HostSide } from './host-side.js';
import { kernelParameters } from './inputs.js';

export interface DeviceContender {
  readonly name: string;
  readonly devices: readonly Device[];
  /** The command that boots the guest with one device. @param append words for the kernel's command line */
  command(device: Device, append: string): Promise<readonly string[]> | readonly string[];
}

export interface DeviceKernel {
  readonly bzImage: string;
  readonly vmlinux: string;
  readonly initrd: string;
}

const MEMORY = `${DEVICE_MEMORY_MIB}M`;
const VIRTIOFSD = ['/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd'];

/** @param scratch a folder for configuration files */
export function deviceContenders(
  kernel: DeviceKernel,
  host: HostSide,
  scratch: string,
): readonly DeviceContender[] {
  const contenders: DeviceContender[] = [tsvmm(kernel, host)];
  const qemu = which('qemu-system-x86_64');
  if (qemu !== undefined) contenders.push(qemuMicrovm(qemu, kernel, host));
  const firecracker = which('firecracker');
  if (firecracker !== undefined) contenders.push(firecrackerVm(firecracker, kernel, host, scratch));
  return contenders;
}

/** Machines of tsvmm whose guest does nothing: a name, how many of a device they have, and the command. */
export function idleMachines(
  { bzImage, initrd }: DeviceKernel,
  host: HostSide,
): readonly { readonly name: string; readonly copies: number; readonly command: readonly string[] }[] {
  const machine = (name: string, options: readonly string[], copies = COPIES) => ({
    name,
    copies,
    command: [
      ...[...TSVMM, 'boot', '--memory', MEMORY, '--cpus', '1', '--initrd', initrd, ...options],
      ...['--append', 'quiet BENCH_IDLE=1', bzImage],
    ],
  });
  const shares = host.idleDisks.map((_, copy) => ['--share', `idle${copy}=${host.share}`]);
  return [
    machine('none', [], 0),
    machine(
      'blk',
      host.idleDisks.flatMap((disk) => ['--disk', disk]),
    ),
    machine(
      'net',
      host.idleTaps.flatMap((tap) => ['--net', `tap=${tap}`]),
    ),
    machine('fs', shares.flat()),
    machine('vsock', ['--vsock', host.vsock], 1),
    machine('rng', ['--rng'], 1),
  ];
}

function tsvmm({ bzImage, initrd }: DeviceKernel, host: HostSide): DeviceContender {
  const options: Readonly<Record<Device, readonly string[]>> = {
    blk: ['--disk', host.disk],
    net: ['--net', `tap=${host.tap}`],
    vsock: ['--vsock', host.vsock],
    fs: ['--share', `bench=${host.share}`],
  };
  return {
    name: 'tsvmm',
    devices: ['blk', 'net', 'vsock', 'fs'],
    command: (device, append) => [
      ...[...TSVMM, 'boot', '--memory', MEMORY, '--cpus', '1', '--initrd', initrd],
      ...options[device],
      ...['--append', append, bzImage],
    ],
  };
}

/** Its virtio-mmio is of the old kind unless told otherwise. */
function qemuMicrovm(program: string, { vmlinux, initrd }: DeviceKernel, host: HostSide): DeviceContender {
  const virtiofsd = VIRTIOFSD.find((path) => existsSync(path)) ?? which('virtiofsd');
  const options = async (device: Device): Promise<readonly string[]> => {
    switch (device) {
      case 'blk':
        // The host's page cache is in it, as with tsvmm: a tmpfs has no cache=none.
        return [
          ...['-object', 'iothread,id=io'],
          ...[
            '-drive',
            `if=none,id=disk,file=${host.disk},format=raw,aio=io_uring,cache=writeback,discard=unmap`,
          ],
          ...['-device', 'virtio-blk-device,drive=disk,iothread=io'],
        ];
      case 'net':
        return [
          ...['-netdev', `tap,id=net,ifname=${host.tap},script=no,downscript=no,vhost=off`],
          ...['-device', 'virtio-net-device,netdev=net'],
        ];
      case 'vsock':
        return ['-device', 'vhost-vsock-device,guest-cid=3'];
      case 'fs': {
        const socket = await host.startVirtiofsd(virtiofsd ?? '');
        return [
          ...['-chardev', `socket,id=fs,path=${socket}`],
          ...['-device', 'vhost-user-fs-device,chardev=fs,tag=bench'],
        ];
      }
    }
  };
  const able: Readonly<Record<Device, boolean>> = {
    blk: true,
    net: true,
    vsock: host.hasVhostVsock,
    fs: virtiofsd !== undefined,
  };
  const machine = 'microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=off,memory-backend=ram';
  return {
    name: 'QEMU',
    devices: (['blk', 'net', 'vsock', 'fs'] as const).filter((device) => able[device]),
    command: async (device, append) => [
      ...[program, '-M', machine, '-enable-kvm', '-cpu', 'host', '-m', MEMORY, '-smp', '1'],
      ...['-object', `memory-backend-memfd,id=ram,size=${MEMORY},share=on`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...['-global', 'virtio-mmio.force-legacy=false'],
      ...(await options(device)),
      ...['-kernel', vmlinux, '-initrd', initrd, '-append', `${kernelParameters()} ${append}`],
    ],
  };
}

function firecrackerVm(
  program: string,
  { vmlinux, initrd }: DeviceKernel,
  host: HostSide,
  scratch: string,
): DeviceContender {
  const drive = { drive_id: 'disk', path_on_host: host.disk, is_root_device: false, is_read_only: false };
  const card = { iface_id: 'eth0', host_dev_name: host.tap };
  return {
    name: 'Firecracker',
    devices: ['blk', 'net', 'vsock'],
    command: (device, append) => {
      // Its machine has no power switch, but a reset button.
      const bootArgs = `${kernelParameters()} ${append} BENCH_END=reboot`;
      const config = {
        'boot-source': { kernel_image_path: vmlinux, initrd_path: initrd, boot_args: bootArgs },
        'machine-config': { vcpu_count: 1, mem_size_mib: DEVICE_MEMORY_MIB },
        drives: device === 'blk' ? [drive] : [],
        ...(device === 'net' ? { 'network-interfaces': [card] } : {}),
        ...(device === 'vsock' ? { vsock: { guest_cid: 3, uds_path: host.vsock } } : {}),
      };
      const file = join(scratch, 'firecracker.json');
      writeFileSync(file, JSON.stringify(config));
      return [program, '--no-api', '--config-file', file];
    },
  };
}
