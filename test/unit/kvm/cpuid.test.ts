import t from 'tap';
import { adaptCpuid, Cpuid, type CpuidEntry } from '../../../src/kvm/cpuid.js';

const none = { index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };

function list(entries: readonly (Partial<CpuidEntry> & { function: number })[], room = 8): Cpuid {
  const cpuid = Cpuid.allocate(entries.length + room);
  for (const entry of entries) {
    cpuid.put({ ...none, ...entry });
  }
  return cpuid;
}

t.test('a list of entries and back', async (t) => {
  const entries = [
    { ...none, function: 0, eax: 0x10, ebx: 0x68747541 },
    { ...none, function: 4, index: 1, flags: 1, edx: 0xffffffff },
  ];
  const cpuid = Cpuid.fromEntries(entries);
  t.strictSame(cpuid.entries(), entries);
  t.equal(cpuid.count, 2);
  t.equal(cpuid.capacity, 2);
  t.throws(() => cpuid.put({ ...none, function: 9 }), RangeError);
  cpuid.put({ ...none, function: 0, eax: 1 });
  t.equal(cpuid.get(0, 'eax'), 1, 'put over what is there');
});

t.test('a count beyond the bytes is not believed', async (t) => {
  const cpuid = list([{ function: 1 }], 0);
  cpuid.view.setUint32(0, 1000, true);
  t.equal(cpuid.entries().length, 1);
  t.equal(cpuid.find(2), -1);
});

t.test('sub-leaves count only where they are significant', async (t) => {
  const cpuid = list([
    { function: 1, eax: 1 },
    { function: 4, index: 0, flags: 1, eax: 40 },
    { function: 4, index: 1, flags: 1, eax: 41 },
  ]);
  t.equal(cpuid.get(1, 'eax', 7), 1);
  t.equal(cpuid.get(4, 'eax', 1), 41);
  t.equal(cpuid.get(4, 'eax', 2), undefined);
});

t.test('bits are replaced under a mask, also the highest', async (t) => {
  const cpuid = list([{ function: 1, ecx: 0x0f0f0f0f }]);
  t.ok(cpuid.set(1, 'ecx', 0xffffffff, 0x800000f0));
  t.equal(cpuid.get(1, 'ecx'), 0x8f0f0fff);
  t.notOk(cpuid.set(2, 'ecx', 1));
});

t.test('removal keeps the order of the others', async (t) => {
  const cpuid = list([
    { function: 1 },
    { function: 0x1f },
    { function: 2 },
    { function: 0x1f, index: 1, flags: 1 },
    { function: 3 },
  ]);
  cpuid.remove(0x1f);
  t.strictSame(
    cpuid.entries().map((entry) => entry.function),
    [1, 2, 3],
  );
});

t.test('empty entries at the end are trimmed, others stay', async (t) => {
  const cpuid = list([{ function: 0, eax: 1 }, { function: 9 }, { function: 2 }]);
  cpuid.view.setUint32(0, 11, true);
  cpuid.trim();
  t.equal(cpuid.count, 3);
  cpuid.view.setUint32(0, 0, true);
  cpuid.trim();
  t.equal(cpuid.count, 0);
});

t.test('a copy stands alone', async (t) => {
  const cpuid = list([{ function: 1 }]);
  const copy = cpuid.copy();
  cpuid.set(1, 'eax', 5);
  t.equal(copy.get(1, 'eax'), 0);
});

function host(): Cpuid {
  return list([
    { function: 1, ebx: 0x07100800, ecx: 0, edx: 0x178bfbff },
    { function: 4, index: 0, flags: 1, eax: 0x1c004121 },
    { function: 4, index: 1, flags: 1, eax: 0x1c004122 },
    { function: 4, index: 2, flags: 1, eax: 0x1c004143 },
    { function: 4, index: 3, flags: 1, eax: 0x1c03c163 },
    { function: 4, index: 4, flags: 1, eax: 0 },
    { function: 0xb, index: 0, flags: 1, edx: 9 },
    { function: 0x1f, index: 0, flags: 1, edx: 9 },
    { function: 0x40000001, eax: 0x01007efb },
    { function: 0x80000008, eax: 0x3030, ecx: 0x700f },
    { function: 0x8000001d, index: 3, flags: 1, eax: 0x0003c163 },
    { function: 0x8000001e, eax: 9, ebx: 0x109, ecx: 0x101 },
  ]);
}

t.test('the third of four vCPUs', async (t) => {
  const cpuid = host();
  adaptCpuid(cpuid, { apicId: 2, vcpus: 4, tscDeadline: true });
  t.equal(cpuid.get(1, 'ebx'), 0x02040800, 'APIC id, ids of the package, CLFLUSH size kept');
  t.equal(cpuid.get(1, 'ecx'), 0x81000000, 'hypervisor, TSC deadline timer');
  t.equal((cpuid.get(1, 'edx') ?? 0) & (1 << 28), 1 << 28);
  for (const [index, eax] of [
    [0, 0x0c000121],
    [1, 0x0c000122],
    [2, 0x0c000143],
    [3, 0x0c00c163],
  ] as const) {
    t.equal(cpuid.get(4, 'eax', index), eax, `cache ${index}`);
  }
  t.match(
    cpuid.entries().filter((entry) => entry.function === 0xb),
    [
      { index: 0, eax: 0, ebx: 1, ecx: 0x100, edx: 2 },
      { index: 1, eax: 2, ebx: 4, ecx: 0x201, edx: 2 },
    ],
  );
  t.equal(cpuid.find(0x1f), -1);
  t.equal(cpuid.get(0x40000001, 'eax'), 0x01007efb, "KVM's own leaves are as they were");
  t.equal(cpuid.get(0x80000008, 'ecx'), 0x2003);
  t.match(cpuid.entries().at(-3), { function: 0x8000001e, eax: 2, ebx: 2, ecx: 0 });
});

t.test('one vCPU has no neighbours', async (t) => {
  const cpuid = host();
  adaptCpuid(cpuid, { apicId: 0, vcpus: 1, tscDeadline: false });
  t.equal(cpuid.get(1, 'ebx'), 0x00010800);
  t.equal(cpuid.get(1, 'ecx'), 0x80000000);
  t.equal((cpuid.get(1, 'edx') ?? 0) & (1 << 28), 0);
  t.equal(cpuid.get(0xb, 'eax', 1), 0);
  t.equal(cpuid.get(0xb, 'ebx', 1), 1);
});

t.test('adapting again for another vCPU is the same as adapting a fresh list', async (t) => {
  const again = host();
  for (const apicId of [0, 1, 2, 3]) {
    adaptCpuid(again, { apicId, vcpus: 4, tscDeadline: true });
    const fresh = host();
    adaptCpuid(fresh, { apicId, vcpus: 4, tscDeadline: true });
    t.strictSame(again.entries(), fresh.entries());
  }
});
