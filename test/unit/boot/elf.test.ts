import t from 'tap';
import { parseElf } from '../../../src/boot/elf.js';
import { bytesReader } from '../../../src/boot/reader.js';
import { damaged, elfFile, note, type TestSegment } from '../../support/boot-images.js';
import { survive } from '../../support/hostile.js';

const TEXT: TestSegment = {
  offset: 0x1000,
  virtual: 0xffff_ffff_8100_0000n,
  physical: 0x100_0000n,
  fileSize: 0x1000n,
  memorySize: 0x1000n,
};
const DATA: TestSegment = {
  offset: 0x2000,
  virtual: 0xffff_ffff_8120_0000n,
  physical: 0x120_0000n,
  fileSize: 0x800n,
  memorySize: 0x3000n,
};
const parse = (bytes: Uint8Array) => parseElf(bytesReader(bytes), 'vmlinux');
const change = (offset: number, ...values: number[]) => {
  const bytes = elfFile([TEXT, DATA]);
  bytes.set(values, offset);
  return bytes;
};

t.test('a kernel: its segments in order of address, and its entry', async (t) => {
  t.same(parse(elfFile([DATA, TEXT])), {
    segments: [
      { fileOffset: 0x1000, fileSize: 0x1000, memorySize: 0x1000, physicalAddress: 0x100_0000 },
      { fileOffset: 0x2000, fileSize: 0x800, memorySize: 0x3000, physicalAddress: 0x120_0000 },
    ],
    entry: 0x100_0000,
  });
});

t.test('a virtual entry point is translated', async (t) => {
  t.equal(parse(elfFile([TEXT, DATA], 0x4000, 0xffff_ffff_8120_0010n)).entry, 0x120_0010);
});

t.test('the PVH note gives the 32-bit entry, and the kernel its name', async (t) => {
  const word = Uint8Array.of(0x40, 0, 0, 1);
  const notes = Buffer.concat([
    note('GNU', 18, Uint8Array.of(9, 9, 9, 9)),
    note('Xen', 6, Buffer.from('linux\0')),
    note('Xen', 18, word),
  ]);
  const segment = { ...TEXT, type: 4, offset: 0x3000, fileSize: BigInt(notes.length) };
  const bytes = elfFile([TEXT, DATA, segment]);
  bytes.set(notes, 0x3000);
  t.match(parse(bytes), { pvhEntry: 0x100_0040, guestOs: 'linux' });
  bytes[0x3000 + notes.length - 1] = 0x7f;
  t.throws(() => parse(bytes), { message: /PVH entry 0x7f000040 lies in no segment/ });
});

t.test('only the headers and the notes are read', async (t) => {
  let most = 0;
  const bytes = elfFile([TEXT, DATA]);
  const reader = {
    size: bytes.length,
    read: (offset: number, length: number) => {
      most = Math.max(most, offset + length);
      return bytes.subarray(offset, offset + length);
    },
  };
  parseElf(reader, 'vmlinux');
  t.equal(most, 64 + 2 * 56);
});

for (const [name, bytes, expected] of [
  ['no ELF', Buffer.from('hello'), { code: 'not-a-kernel', message: /vmlinux: not an ELF file/ }],
  ['a stub', change(0).slice(0, 40), { code: 'truncated', message: /header is truncated/ }],
  ['arm64', change(18, 183), { code: 'wrong-architecture', message: /for arm64, not for x86-64/ }],
  ['an unknown machine', change(18, 0x33, 0x33), { code: 'wrong-architecture', message: /machine 13107/ }],
  ['i386', change(18, 3), { code: 'wrong-architecture', message: /x86 \(32-bit\)/ }],
  ['big-endian', change(5, 2), { code: 'wrong-architecture', message: /EI_DATA/ }],
  ['x32', change(4, 1), { code: 'wrong-architecture', message: /EI_CLASS/ }],
  ['an object file', change(16, 1), { code: 'not-a-kernel', message: /e_type/ }],
  ['no headers', change(56, 0, 0), { code: 'malformed', message: /e_phnum/ }],
  ['PN_XNUM', change(56, 0xff, 0xff), { code: 'unsupported', message: /e_phnum/ }],
  ['another entry size', change(54, 32), { code: 'malformed', message: /e_phentsize: 32/ }],
  ['headers beyond', change(32, 0, 0, 0xff), { code: 'truncated', message: /program headers/ }],
  [
    'headers at the end of time',
    change(32, ...Array(8).fill(0xff)),
    { code: 'truncated', message: /program/ },
  ],
  ['nothing to load', elfFile([{ ...TEXT, type: 4 }]), { code: 'malformed', message: /no PT_LOAD/ }],
  [
    'a cut file',
    elfFile([TEXT, DATA]).slice(0, 0x27ff),
    { code: 'truncated', message: /segment 1: .*end of/ },
  ],
  [
    'p_filesz',
    elfFile([{ ...TEXT, memorySize: 1n }]),
    { code: 'malformed', message: /p_filesz 4096 exceeds/ },
  ],
  [
    'overlap',
    elfFile([TEXT, { ...DATA, physical: 0x100_0fffn }]),
    { code: 'malformed', message: /segments 0 and 1 overlap at 0x1000fff/ },
  ],
  [
    'an address that wraps',
    elfFile([{ ...TEXT, physical: 0xffff_ffff_ffff_f000n }]),
    { code: 'malformed', message: /p_paddr/ },
  ],
  [
    'memory without end',
    elfFile([{ ...TEXT, memorySize: 2n ** 64n - 1n }]),
    { code: 'malformed', message: /p_paddr/ },
  ],
  ['an entry nowhere', elfFile([TEXT], 0x4000, 0x42n), { code: 'malformed', message: /e_entry: 0x42/ }],
  [
    'endless notes',
    elfFile([TEXT, { ...TEXT, type: 4, fileSize: 2n ** 40n }]),
    { code: 'malformed', message: /notes/ },
  ],
] as const) {
  t.test(`refused: ${name}`, async (t) => {
    t.throws(() => parse(bytes), expected);
  });
}

t.test('damaged files end in a kernel or a BootError', async (t) => {
  const notes = Buffer.concat([
    note('Xen', 6, Buffer.from('linux\0')),
    note('Xen', 18, Uint8Array.of(0, 0, 0, 1)),
  ]);
  const bytes = elfFile([TEXT, { ...TEXT, type: 4, offset: 0x3000, fileSize: BigInt(notes.length) }]);
  bytes.set(notes, 0x3000);
  const result = await survive(damaged(bytes, 64 + 2 * 56, 500), parse);
  t.same(result.escaped, []);
  t.ok(result.refused > 300);
  const hostileNotes = damaged(notes, notes.length - 1, 500);
  const inNotes = function* () {
    for (const change of hostileNotes) {
      const copy = bytes.slice();
      copy.set(change, 0x3000);
      yield copy;
    }
  };
  t.same((await survive(inNotes(), parse)).escaped, []);
});
