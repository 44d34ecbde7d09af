import t from 'tap';
import { parseDisk } from '../../../src/cli/disk-option.js';

t.test('a disk and its options', async (t) => {
  t.same(parseDisk('disk.img'), { path: 'disk.img' });
  t.same(parseDisk('/dev/sda,ro'), { path: '/dev/sda', readOnly: true });
  t.same(parseDisk('a,direct,queues=4,ro'), { path: 'a', direct: true, queues: 4, readOnly: true });
  t.same(parseDisk('a,engine=threads'), { path: 'a', engine: 'threads' });
  t.same(parseDisk('a,iops=100,rate=8M'), {
    path: 'a',
    limits: { operationsPerSecond: 100, bytesPerSecond: 8 << 20 },
  });
});

t.test('commas that belong to the name', async (t) => {
  t.same(parseDisk('a,b.img'), { path: 'a,b.img' });
  t.same(parseDisk('a,ro,b.img,ro'), { path: 'a,ro,b.img', readOnly: true });
  t.same(parseDisk('x\ny,ro'), { path: 'x\ny', readOnly: true });
});

t.test('what is wrong is named', async (t) => {
  t.throws(() => parseDisk(''), /--disk: expected FILE or FILE,OPTION..., got ""/);
  t.throws(() => parseDisk(',ro'), /--disk: expected FILE or FILE,OPTION..., got ",ro"/);
  t.throws(
    () => parseDisk('a,queues=17'),
    /--disk a,queues=17: queues: expected a whole number from 1 to 16/,
  );
  t.throws(() => parseDisk('a,queues='), /queues: expected a whole number from 1 to 16, got ""/);
  t.throws(() => parseDisk('a,engine=aio'), /engine: expected uring or threads, got "aio"/);
  t.throws(() => parseDisk('a,rate=fast'), /rate: expected a size like 128M/);
  t.throws(() => parseDisk('a,rate=0'), /rate: expected more than 0 bytes a second/);
  t.throws(() => parseDisk('a,iops=0'), /iops: expected a whole number from 1 to /);
});
