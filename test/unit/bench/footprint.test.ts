import t from 'tap';
import { beyondGuest } from '../../../bench/footprint.js';

function mapping(path: string, sizes: { size: number; rss: number; pss: number }): string {
  return [
    `7f0000000000-7f0008000000 rw-p 00000000 00:00 0 ${path === '' ? '' : `                         ${path}`}`,
    `Size:             ${sizes.size} kB`,
    'KernelPageSize:        4 kB',
    `Rss:              ${sizes.rss} kB`,
    `Pss:              ${sizes.pss} kB`,
    `Pss_Dirty:        ${sizes.pss} kB`,
    'VmFlags: rd wr mr mw me ac sd',
    '',
  ].join('\n');
}

const guest = 128 << 20;
const ram = mapping('', { size: 131072, rss: 40000, pss: 40000 });
const node = mapping('/usr/bin/node', { size: 90000, rss: 20000, pss: 10000 });
const heap = mapping('[heap]', { size: 3000, rss: 2000, pss: 2000 });
const library = mapping('/lib/libc.so.6', { size: 1500, rss: 1000, pss: 250 });
const reserved = mapping('', { size: 131072, rss: 0, pss: 0 });

t.test("the guest's RAM does not count, Node's executable counts in whole", async (t) => {
  const smaps = [node, heap, reserved, ram, library].join('');
  t.strictSame(beyondGuest(smaps, guest, '/usr/bin/node'), { resident: 23000, proportional: 22250 });
  t.strictSame(beyondGuest(smaps, guest, '/usr/bin/other'), { resident: 23000, proportional: 12250 });
});

t.test('a machine without RAM is an error', async (t) => {
  t.throws(() => beyondGuest([node, heap].join(''), guest), /no mapping of 131072 KiB/);
  t.throws(() => beyondGuest([node, reserved].join(''), guest), /no mapping/);
  t.throws(() => beyondGuest('', guest), /no mapping/);
});

t.test("this process's own smaps can be read", async (t) => {
  const { readFileSync } = await import('node:fs');
  const all = beyondGuest(`${readFileSync('/proc/self/smaps', 'utf8')}${ram}`, guest);
  t.ok(all.resident > 1000);
  t.ok(all.proportional > 0);
});
