import { existsSync, lstatSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeMountPoints } from '../../../src/runtime/mount-points.js';
import type { Mount } from '../../../src/runtime/spec/types.js';
import { temporaryFolder } from '../../support/bundle.js';
import { sampleSpec } from '../../support/spec.js';

const DEV: Mount = { destination: '/dev', type: 'tmpfs' };

function make(root: string, mounts: Mount[], files: string[] = [], cwd = '/'): boolean {
  const spec = sampleSpec();
  spec.process.cwd = cwd;
  return makeMountPoints(root, { ...spec, mounts }, new Set(files));
}

const at = (destination: string): Mount => ({ destination, type: 'bind', source: '/x' });

t.test('folders, files and the working folder are made; what is there stays', async (t) => {
  const root = temporaryFolder(t);
  mkdirSync(join(root, 'etc'));
  writeFileSync(join(root, 'etc/hosts'), 'kept');
  const mounts = [DEV, at('/a/b//c/'), at('/etc/hosts'), at('/etc/deep/name'), at('x/../y')];
  t.equal(make(root, mounts, ['/etc/hosts', '/etc/deep/name'], '/srv/place'), true);
  t.ok(lstatSync(join(root, 'a/b/c')).isDirectory());
  t.equal(lstatSync(join(root, 'a')).mode & 0o777, 0o755);
  t.equal(lstatSync(join(root, 'etc/hosts')).size, 4);
  t.ok(lstatSync(join(root, 'etc/deep/name')).isFile());
  t.ok(lstatSync(join(root, 'srv/place')).isDirectory());
  t.ok(lstatSync(join(root, 'y')).isDirectory());
});

t.test('what is made below another mount is not made here', async (t) => {
  const root = temporaryFolder(t);
  mkdirSync(join(root, 'var'));
  symlinkSync('/run', join(root, 'var/run'));
  make(root, [DEV, at('/dev/pts'), at('/run'), at('/run/x/y'), at('/var/run/z')], [], '/dev/shm');
  t.same(readdirSync(join(root, 'dev')), []);
  t.same(readdirSync(join(root, 'run')), []);
});

t.test('links and .. stay inside, whatever the root file system says', async (t) => {
  const folder = temporaryFolder(t);
  const root = join(folder, 'rootfs');
  mkdirSync(root);
  mkdirSync(join(folder, 'outside'));
  symlinkSync('../outside', join(root, 'up'));
  symlinkSync(join(folder, 'outside'), join(root, 'absolute'));
  symlinkSync('/../../outside/file', join(root, 'file'));
  make(root, [at('/up/a'), at('/absolute/b'), at('/../../outside/c'), at('/file')], ['/file']);
  t.same(readdirSync(join(folder, 'outside')), []);
  t.ok(lstatSync(join(root, 'outside/a')).isDirectory(), 'as in a chroot');
  t.ok(lstatSync(join(root, folder, 'outside/b')).isDirectory());
  t.ok(lstatSync(join(root, 'outside/c')).isDirectory());
  t.ok(lstatSync(join(root, 'outside/file')).isFile());
});

t.test('what is in the way is told with the mount', async (t) => {
  const root = temporaryFolder(t);
  writeFileSync(join(root, 'file'), '');
  symlinkSync('loop', join(root, 'loop'));
  t.throws(() => make(root, [DEV, at('/file/below')]), {
    name: 'UserError',
    message:
      /^config\.json: mounts\[1\]: the mount point \/file\/below cannot be made in the root file system: a part of the path is not a folder$/,
  });
  t.throws(() => make(root, [at('/loop/x')]), { message: /mounts\[0\]: .* too many symbolic links$/ });
  t.throws(() => make(root, [], [], '/file/x'), {
    message: /^config\.json: process\.cwd: \/file\/x cannot be made/,
  });
});

t.test('where device files have to be made too, that is told', async (t) => {
  const root = temporaryFolder(t);
  t.equal(make(root, []), false, 'nothing covers /dev');
  t.equal(make(root, [DEV]), true);
  const spec = sampleSpec();
  spec.mounts = [DEV];
  spec.linux = { devices: [{ type: 'c', path: '/srv/null', major: 1, minor: 3 }] };
  t.equal(makeMountPoints(root, spec, new Set()), false);
  t.notOk(existsSync(join(root, 'srv')));
});
