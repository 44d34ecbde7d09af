import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../addon/index.js';
import { UserError } from './errors.js';

/** The kernel and the initramfs of a container's machine. */
export interface GuestFiles {
  readonly kernel: string;
  readonly initrd: string;
}

/** Where tsvmm's own kernel and initramfs may be, best first. The environment, where set, decides alone. */
export function guestFilePlaces(
  what: 'kernel' | 'initrd',
  env: NodeJS.ProcessEnv = process.env,
): readonly string[] {
  const chosen = what === 'kernel' ? env.TSVMM_KERNEL : env.TSVMM_INITRD;
  if (chosen !== undefined && chosen !== '') return [chosen];
  const name = what === 'kernel' ? 'bzImage' : 'initramfs.cpio';
  return [join(packageRoot(), 'guest/out', name), join('/usr/share/tsvmm', name)];
}

/** The files to boot: those that are named, else tsvmm's own. Throws a UserError where there are none. */
export function guestFiles(named: {
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
}): GuestFiles {
  return { kernel: named.kernel ?? guestFile('kernel'), initrd: named.initrd ?? guestFile('initrd') };
}

/** tsvmm's own kernel or initramfs. Throws a UserError where there is none. */
export function guestFile(what: 'kernel' | 'initrd'): string {
  const places = guestFilePlaces(what);
  const found = places.find((path) => existsSync(path));
  if (found !== undefined) return found;
  const name = what === 'kernel' ? 'kernel' : 'initramfs';
  throw new UserError(
    `there is no guest ${name} (looked for ${places.join(', ')}): run "npm run setup", or name one with --${what}`,
  );
}
