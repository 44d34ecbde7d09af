/**
 * The story of a boot, top to bottom: from a configuration to a machine whose first vCPU stands before the kernel's first
 * instruction. What the first instruction does not need is not here.
 */
import { addon } from '../addon/index.js';
import { type AcpiDevice, buildAcpiTables } from '../boot/acpi/tables.js';
import { buildBootParams } from '../boot/boot-params.js';
import { encodeCommandLine, joinCommandLine } from '../boot/command-line.js';
import { buildGdt, linux64Entry, pvhEntry } from '../boot/entry.js';
import { openKernel } from '../boot/kernel.js';
import { identityPageTables } from '../boot/page-tables.js';
import { checkKernelFits, placeInitrd } from '../boot/placement.js';
import { buildStartInfo } from '../boot/pvh.js';
import { OpenFile } from '../boot/reader.js';
import { KVM_CAP_TSC_DEADLINE_TIMER } from '../kvm/constants.js';
import { adaptCpuid } from '../kvm/cpuid.js';
import { Kvm } from '../kvm/kvm.js';
import type { Vm } from '../kvm/vm.js';
import { GuestMemory } from '../memory/guest-memory.js';
import * as layout from '../memory/layout.js';
import { checkConfig, type MachineConfig } from './config.js';
import { defaultCommandLine } from './defaults.js';
import { describeDevices } from './devices.js';
import { MachineError } from './error.js';
import { loadKernel } from './kernel.js';
import type { MachineEvents, MachineParts } from './machine.js';
import { openNetworks } from './networks.js';
import { bootVcpu } from './vcpu.js';

export async function buildMachine(config: MachineConfig, events: MachineEvents): Promise<MachineParts> {
  checkConfig(config);
  const { timeline } = config;
  const release: (() => void)[] = [];
  try {
    // The addon first: all else needs it. The kernel begins to make the VM while the next steps go on here.
    const native = addon();
    Kvm.prepare();
    timeline?.mark('addon');

    // The kernel as a plan: which bytes of which file go where, and where it is entered. Nothing is read yet.
    const { decompress, cacheDir, initrd: initrdPath } = config.kernel;
    const kernel = await openKernel(config.kernel.path, {
      ...(decompress === undefined ? {} : { decompress }),
      ...(cacheDir === undefined ? {} : { cacheDir }),
    });
    const initrd = initrdPath === undefined ? undefined : new OpenFile(initrdPath);
    if (initrd !== undefined) release.push(() => initrd.close());
    timeline?.mark('kernel');

    // RAM: mapped, not touched. The kernel and the initramfs are read to their places.
    const ram = layout.ramRegions(config.memory);
    const lowRam = ram[0]?.size ?? 0;
    checkKernelFits(kernel, lowRam);
    const memory = new GuestMemory({ regions: ram, backing: config.memoryBacking ?? 'anonymous' });
    release.push(() => memory.close());
    loadKernel(kernel, memory);
    const initrdRange =
      initrd && placeInitrd(initrd.size, lowRam, kernel.initrdAddressMax, kernel, initrd.path);
    if (initrd && initrdRange) memory.load(initrd.fd, 0, initrdRange.address, initrd.size);
    timeline?.mark('memory');

    // The virtual machine, its interrupt controllers, and its memory: a slot a region.
    const kvm = Kvm.open();
    release.push(() => kvm.close());
    const vm = kvm.createVm();
    release.push(() => vm.close());
    vm.setTssAddress(0xfffb_d000);
    vm.createIrqchip();
    // Its one use is to calibrate a local APIC timer that has no deadline mode; making and ending it costs grace periods.
    const tscDeadline = kvm.checkExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    if (!tscDeadline) vm.createPit2();
    memory.regions.forEach(({ address, size, host }, slot) => {
      vm.setUserMemoryRegion({ slot, address, size, host });
    });
    timeline?.mark('vm');

    // The devices, on the two buses.
    const machine = new native.NativeMachine(vm.fd, memory.native, events.listener);
    release.unshift(() => machine.close());
    const interruptLine = (gsi: number): number => assignInterrupt(vm, gsi, release);
    machine.addPower(layout.POWER_ADDRESS, layout.PVPANIC_ADDRESS);
    machine.addTimelinePort(TIMELINE_PORT);
    if (config.serial !== undefined) {
      machine.addSerial(layout.COM1_PORT, interruptLine(layout.COM1_GSI), config.serial);
    }
    for (const device of config.devices ?? []) {
      machine.addScriptDevice(
        device.space,
        device.base,
        device.length,
        (offset, size) => device.read?.(offset, size) ?? -1,
        (offset, size, value) => device.write?.(offset, size, value),
      );
    }
    const nics = await openNetworks(config, release);
    const { descriptions, vsock, disks, balloon, ports } = describeDevices(
      config,
      nics,
      () => memory,
      release,
    );
    const virtioMmio = descriptions.map((description, index): AcpiDevice => {
      const gsi = layout.VIRTIO_MMIO_GSIS[index];
      if (gsi === undefined) {
        throw new MachineError(`too many devices: a machine has room for ${layout.VIRTIO_MMIO_GSIS.length}`);
      }
      const address = layout.VIRTIO_MMIO_ADDRESS + index * layout.VIRTIO_MMIO_STRIDE;
      machine.addVirtioMmio(address, gsi, description);
      return { address, size: layout.VIRTIO_MMIO_SIZE, gsi };
    });
    timeline?.mark('devices');

    // What the kernel is told: the command line, the ACPI tables, and the zero page that points at them.
    const commandLine = joinCommandLine(defaultCommandLine(config), config.kernel.commandLine);
    memory.write(layout.COMMAND_LINE_ADDRESS, encodeCommandLine(commandLine, kernel.commandLineMax));
    const acpi = buildAcpiTables(
      {
        apicIds: Array.from({ length: config.cpus }, (_, id) => id),
        localApicAddress: layout.LOCAL_APIC_ADDRESS,
        ioApic: { id: 0, address: layout.IOAPIC_ADDRESS, gsiBase: 0 },
        virtioMmio,
        powerAddress: layout.POWER_ADDRESS,
        pvpanic: { address: layout.PVPANIC_ADDRESS, size: layout.PVPANIC_SIZE },
        ...(config.serial === undefined ? {} : { serial: { port: layout.COM1_PORT, gsi: layout.COM1_GSI } }),
      },
      layout.ACPI_ADDRESS,
      layout.ACPI_END - layout.ACPI_ADDRESS,
    );
    memory.write(layout.ACPI_ADDRESS, acpi);
    const told = {
      commandLineAddress: layout.COMMAND_LINE_ADDRESS,
      ...(initrdRange === undefined ? {} : { initrd: initrdRange }),
      e820: layout.e820(config.memory),
      acpiRsdp: layout.ACPI_ADDRESS,
    };
    memory.write(
      layout.ZERO_PAGE_ADDRESS,
      kernel.protocol === 'pvh'
        ? buildStartInfo({ address: layout.ZERO_PAGE_ADDRESS, ...told })
        : buildBootParams({ setupHeader: kernel.setupHeader, ...told }),
    );

    // The vCPUs. The first stands at the kernel's entry; the others wait to be woken by it.
    const entry =
      kernel.protocol === 'pvh'
        ? pvhEntry(kernel.entry, layout.ZERO_PAGE_ADDRESS)
        : linux64Entry(kernel.entry, layout.ZERO_PAGE_ADDRESS, layout.PAGE_TABLES_ADDRESS);
    memory.write(layout.GDT_ADDRESS, buildGdt(entry));
    memory.write(layout.PAGE_TABLES_ADDRESS, identityPageTables(layout.PAGE_TABLES_ADDRESS, 1));
    const cpuid = kvm.supportedCpuid();
    const vcpus = Array.from({ length: config.cpus }, (_, id) => {
      const vcpu = vm.createVcpu(id);
      release.push(() => vcpu.close());
      adaptCpuid(cpuid, { apicId: id, vcpus: config.cpus, tscDeadline });
      vcpu.setCpuid2(cpuid);
      if (id === 0) bootVcpu(vcpu, entry);
      machine.addVcpu(vcpu.fd, kvm.vcpuMmapSize);
      return vcpu;
    });
    timeline?.mark('vcpus');
    return {
      native: machine,
      vm,
      vcpus,
      memory,
      virtio: descriptions,
      nics,
      vsock,
      disks,
      balloon,
      ports,
      timeline,
      release,
    };
  } catch (error) {
    for (const undo of release) undo();
    throw error;
  }
}

/** A guest that writes a byte there tells how far its start has come (see Machine.collectTimeline). */
const TIMELINE_PORT = 0x5f0;

/** An eventfd that raises `gsi` when it is written. */
function assignInterrupt(vm: Vm, gsi: number, release: (() => void)[]): number {
  const fd = addon().eventfd(0);
  if (fd < 0) throw new MachineError(`no eventfd for an interrupt: errno ${-fd}`);
  release.push(() => addon().close(fd));
  vm.assignIrqfd(fd, gsi);
  return fd;
}
