import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeBundle, memoryFolder } from '../support/bundle.js';
import { tsvmm } from '../support/tsvmm.js';

// Programs that others wrote judge what a machine reads and writes by virtio-fs: they run from this machine's own root
// file system, shared read-only, in a folder that is shared with them.

/** A judge is silent, or what it said is shown. */
const JUDGE = `
  judge() { name=$1; shift; if "$@" > /tmp/log 2>&1; then echo "ok $name"; else echo "not ok $name: status $?"; tail -n 30 /tmp/log; fi; }
  cd /mnt
`;

/** Verifies each block that it has written; each job with another way of reading and writing. */
const FIO = `
[global]
directory=/mnt
size=128k
rw=randrw
bsrange=512-32k
verify=crc32c
verify_fatal=1
[calls]
ioengine=psync
fsync=8
[mapped]
ioengine=mmap
[direct]
ioengine=libaio
iodepth=8
direct=1
`;

const SQLITE = `
  sqlite3 wal.db 'pragma journal_mode=wal; create table t(who, n);'
  for who in 1 2; do
    for n in 1 2 3 4; do sqlite3 -cmd '.timeout 60000' wal.db "begin immediate; insert into t values($who, $n); commit" || exit 1; done &
  done
  wait
  [ "$(sqlite3 wal.db 'select count(*), sum(n) from t; pragma integrity_check')" = "$(printf '8|20\\nok')" ]
`;

const GIT = `
  set -e
  export HOME=/tmp; git config --global user.name n; git config --global user.email e@x; git config --global safe.directory '*'
  git init -q origin; cp -r /mnt/project/. origin/; cd origin
  for n in $(seq 25); do echo $n > file$n; done
  git add -A; git commit -qm first; git mv file1 moved; git commit -qam second
  cd ..; git clone -q --no-local origin clone
  git -C clone fsck --full --strict; [ -z "$(git -C clone status --short)" ]
`;

const BUILD = `
  set -e
  mkdir build; tar -C build -xzf project.tar.gz; cd build; make -s -j2
  [ "$(./program)" = "6 parts" ]
  touch part2.c; make -q && exit 1; make -s; make -q
`;

const STRESS = ['rename', 'dentry', 'flock', 'locka', 'fallocate', 'utime', 'fcntl'];

function writeProject(folder: string): void {
  mkdirSync(folder);
  const parts = [1, 2, 3];
  for (const n of parts) writeFileSync(join(folder, `part${n}.c`), `int part${n}(void) { return ${n}; }\n`);
  const sum = parts.map((n) => `part${n}()`).join(' + ');
  const declared = parts.map((n) => `int part${n}(void);`).join(' ');
  writeFileSync(
    join(folder, 'main.c'),
    `#include <stdio.h>\n${declared}\nint main(void) { printf("%d parts\\n", ${sum}); return 0; }\n`,
  );
  const objects = parts.map((n) => `part${n}.o`).join(' ');
  writeFileSync(
    join(folder, 'Makefile'),
    `program: main.o libparts.a\n\t$(CC) -o $@ main.o -L. -lparts\nlibparts.a: ${objects}\n\t$(AR) rcs $@ ${objects}\n`,
  );
}

t.test('fio, sqlite3, git, make and stress-ng find nothing wrong', async (t) => {
  const scratch = memoryFolder(t);
  chmodSync(scratch, 0o755);
  writeProject(join(scratch, 'project'));
  execFileSync('tar', ['-C', join(scratch, 'project'), '-czf', join(scratch, 'project.tar.gz'), '.']);
  writeFileSync(join(scratch, 'jobs.fio'), FIO);
  for (const [name, script] of Object.entries({ sqlite: SQLITE, git: GIT, build: BUILD }))
    writeFileSync(join(scratch, `${name}.sh`), script);
  const script = `${JUDGE}
    judge fio fio jobs.fio
    for name in sqlite git build; do judge $name bash $name.sh; done
    mkdir stress
    judge stress stress-ng --temp-path stress --verify --timeout 60 --fallocate-bytes 1m --dentries 64 ${STRESS.map((name) => `--${name} 1 --${name}-ops 10`).join(' ')}
    ls stress | wc -l
  `;
  const bundle = makeBundle(t, script, (spec) => {
    spec.root = { path: '/', readonly: true };
    spec.process.cwd = '/mnt';
    spec.process.env = ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'];
    spec.process.rlimits = [];
    spec.mounts?.push(
      { destination: '/tmp', type: 'tmpfs', source: 'tmpfs' },
      { destination: '/mnt', type: 'bind', source: scratch, options: ['rbind', 'rw'] },
    );
  });
  const { status, stdout, stderr } = await tsvmm(['run', '--memory', '512M', '--cpus', '2', bundle]);
  t.equal(stderr, '');
  t.same(stdout.trim().split('\n'), ['ok fio', 'ok sqlite', 'ok git', 'ok build', 'ok stress', '0']);
  t.equal(status, 0);

  // The host finds what the guest left.
  const host = (program: string, ...args: string[]) =>
    execFileSync(program, args, { cwd: scratch, encoding: 'utf8' });
  t.equal(host('sqlite3', 'wal.db', 'select count(*) from t; pragma integrity_check'), '8\nok\n');
  t.doesNotThrow(() => host('git', '-c', 'safe.directory=*', '-C', 'clone', 'fsck', '--full', '--strict'));
  t.equal(host('./build/program'), '6 parts\n');
  t.equal(readFileSync(join(scratch, 'clone/moved'), 'utf8'), '1\n');
});
