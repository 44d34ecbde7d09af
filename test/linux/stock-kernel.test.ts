import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { tsvmm } from '../support/tsvmm.js';

// A distribution's kernel, in the testbed under emulation.
t.setTimeout(600_000);

/** Debian's cloud kernel and its modules; what the testbed itself runs on. */
function stockKernel(): { readonly kernel: string; readonly modules: string } {
  const folder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tsvmm/testbed/kernel');
  const kernel = join(folder, 'vmlinuz');
  if (!existsSync(kernel)) {
    execFileSync(join(packageRoot(), 'testbed/testbed'), ['--prepare'], { stdio: 'inherit' });
  }
  const [version] = readdirSync(join(folder, 'lib/modules'));
  return { kernel, modules: join(folder, 'lib/modules', version ?? '') };
}

async function makeStockInitramfs(t: Test, modules: string): Promise<string> {
  const output = join(temporaryFolder(t), 'stock.cpio');
  const { status, stderr } = await tsvmm(['initramfs', '--modules', modules, '--output', output]);
  t.equal(status, 0, stderr);
  return output;
}

t.test("Debian's cloud kernel runs a bundle, its virtio drivers from an initramfs of ours", async (t) => {
  const { kernel, modules } = stockKernel();
  const initrd = await makeStockInitramfs(t, modules);
  const bundle = makeBundle(t, 'echo "kernel: $(uname -r)"; cat; echo oops >&2; exit 7');
  const { status, stdout, stderr } = await tsvmm(
    ['run', '--bundle', bundle, '--kernel', kernel, '--initrd', initrd, '--memory', '512M'],
    'from standard input\n',
  );
  t.equal(status, 7, stderr);
  t.match(stdout, /kernel: .*cloud-amd64\nfrom standard input\n/);
  t.equal(stderr, 'oops\n');
});
