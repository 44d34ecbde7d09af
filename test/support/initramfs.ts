import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { writeCpio } from '../../src/boot/cpio.js';
import { temporaryFolder } from './bundle.js';

/** An initramfs with busybox whose init runs `script`, with /proc, /sys and /dev there. Returns its path. */
export function makeInitramfs(t: Test, script: string): string {
  const directory = (path: string) => ({ path, mode: 0o040755 });
  const init = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
export PATH=/bin
${script}
`;
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n');
  const archive = writeCpio([
    ...applets
      .filter((applet) => applet !== 'busybox')
      .map((applet) => ({ path: `bin/${applet}`, mode: 0o120777, data: Buffer.from('busybox') })),
    ...['bin', 'dev', 'mnt', 'proc', 'sys'].map(directory),
    { path: 'bin/busybox', mode: 0o100755, data: readFileSync('/bin/busybox') },
    { path: 'dev/console', mode: 0o020600, device: [5, 1] },
    { path: 'init', mode: 0o100755, data: Buffer.from(init) },
  ]);
  const path = join(temporaryFolder(t), 'initramfs.cpio');
  writeFileSync(path, archive);
  return path;
}
