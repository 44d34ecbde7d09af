// What this machine offers: what is behind /dev/kvm, and the testbed for where that is not enough.
import { spawn } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** A failure that the user can mend: its message is all there is to say. */
export class SetupError extends Error {}

/**
 * What `/dev/kvm` is: `hardware` (kvm_intel or kvm_amd: boots Linux), `other` (opens, but boots no stock
 * Linux, such as kvm_pvm), `denied` (no right to open it) or `none`.
 */
export function kvmKind() {
  try {
    closeSync(openSync('/dev/kvm', constants.O_RDWR));
  } catch (error) {
    return error.code === 'EACCES' || error.code === 'EPERM' ? 'denied' : 'none';
  }
  const module = existsSync('/sys/module/kvm_intel') || existsSync('/sys/module/kvm_amd');
  const flags = /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));
  return module && flags && !existsSync('/sys/module/kvm_pvm') ? 'hardware' : 'other';
}

/**
 * Where Linux guests run: undefined for right here, else the reason for the testbed. TSVMM_TESTBED=1 asks
 * for the testbed anyway, TSVMM_TESTBED=0 forbids it.
 */
export function testbedReason() {
  const reason = reasonAgainstThisHost();
  if (reason !== undefined && process.getuid() !== 0) {
    throw new SetupError(
      `${reason}: Linux guests run in the testbed, which wants root; remedy: sudo, or as root`,
    );
  }
  return reason;
}

function reasonAgainstThisHost() {
  if (process.env.TSVMM_TESTBED === '0') return undefined;
  if (process.env.TSVMM_TESTBED === '1') return 'TSVMM_TESTBED=1';
  switch (kvmKind()) {
    case 'hardware':
      return undefined;
    case 'denied':
      throw new SetupError(
        'no right to open /dev/kvm; remedy: sudo usermod -aG kvm "$USER" and log in again, or run as root',
      );
    case 'none':
      return 'no /dev/kvm here';
    default:
      return `no hardware KVM here (${existsSync('/sys/module/kvm_pvm') ? 'kvm_pvm' : 'neither kvm_intel nor kvm_amd'})`;
  }
}

/**
 * The command line that runs `command` in the testbed, with the testbed's own options before it. The testbed
 * ends with the process that starts it, even one that is killed.
 */
export function inTestbed(command, options = []) {
  return [
    'setpriv',
    '--pdeathsig',
    'TERM',
    '--',
    join(root, 'testbed/testbed'),
    ...options,
    '--',
    ...command,
  ];
}

/** Runs a command on this terminal and returns its exit status, 128 + n after signal n. */
export function runHere([program, ...args]) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: 'inherit' });
    const forward = (signal) => child.kill(signal);
    for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, forward);
    process.on('SIGINT', () => {}); // the terminal sends it to the child as well, whose status is ours
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? 128 + osConstants.signals[signal]));
  });
}

/** Runs `main` as a script: its result is the exit status, and a SetupError one line. */
export async function runMain(name, main) {
  try {
    if (Number.parseInt(process.versions.node, 10) < 20) {
      throw new SetupError(`needs Node.js 20 or newer, this is ${process.version}`);
    }
    process.exitCode = await main();
  } catch (error) {
    console.error(error instanceof SetupError ? `${name}: ${error.message}` : error);
    process.exitCode = 1;
  }
}
