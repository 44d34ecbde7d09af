import type { MachineConfig } from './config.js';

/**
 * The kernel parameters of every machine. Later ones win, so what the user appends overrides them.
 * - `panic=-1 reboot=t`: a panic ends the machine at once (the power device tells a panic from a reset).
 * - `pci=off`: there is no PCI; ACPI needs the code but nothing needs the scan.
 * - `tsc=reliable no_timer_check`: the TSC is the host's; no calibration against a timer that need not be there.
 * - `random.trust_cpu=on`: no waiting for entropy.
 * - `i8042.*`, `8250.nr_uarts=1`: no probing for what is known to be absent. (Without `i8042.nopnp`: it is ACPI that tells
 *   that there is no controller.)
 * - `dummy.numdummies=0`: no network interface that nobody asked for.
 */
export function defaultCommandLine(config: MachineConfig): string[] {
  const parameters = [
    'reboot=k panic=-1 pci=off tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests',
    'i8042.noaux i8042.nomux i8042.dumbkbd 8250.nr_uarts=1 dummy.numdummies=0',
  ];
  if (config.console !== undefined) parameters.push('console=hvc0');
  if (config.serial !== undefined) parameters.push('console=ttyS0');
  return parameters;
}
