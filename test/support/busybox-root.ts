import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Makes a root file system in `root`: busybox under all its names in /bin, the users root and user, and these folders. */
export function makeBusyboxRoot(root: string, folders: readonly string[]): void {
  for (const name of ['bin', 'etc', ...folders]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).split('\n')) {
    if (applet !== '' && applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet));
  }
  writeFileSync(
    join(root, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n',
  );
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nuser:x:1000:\n');
}
