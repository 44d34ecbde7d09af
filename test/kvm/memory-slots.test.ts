import t from 'tap';
import * as k from '../../src/kvm/constants.js';
import { microGuest } from '../support/micro-guest.js';

/** The numbers of the bits that are set. */
function pages(bitmap: Uint8Array): number[] {
  return [...bitmap].flatMap((byte, i) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1).map((bit) => i * 8 + bit),
  );
}

const low = { address: 0, size: 0x20000 };

t.test('a write to a read-only slot exits as MMIO, a read does not', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    regions: [low, { address: 0x20000, size: 0x1000, flags: k.KVM_MEM_READONLY }],
    code: `
      mov 0x20010, %eax
      movl $0x55, 0x20014
      mov 0x20014, %ebx
      hlt`,
  });
  g.memory.writeU32(0x20010, 0xcafe);
  t.match(g.expect('mmio'), { direction: 'write', address: 0x20014n });
  g.expect('hlt');
  t.match(g.vcpu.getRegs(), { rax: 0xcafen, rbx: 0n });
  t.equal(g.memory.readU32(0x20014), 0, 'the memory is unchanged');
});

t.test('an access to the first byte behind memory exits, to the last inside does not', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    regions: [low],
    code: 'movb $1, 0x1ffff\nmovb $2, 0x20000\nhlt',
  });
  t.match(g.expect('mmio'), { direction: 'write', address: 0x20000n });
  g.expect('hlt');
  t.equal(g.memory.readU8(0x1ffff), 1);
});

t.test('a slot comes and goes while the machine lives', async (t) => {
  const extra = { address: 0x40000, size: 0x1000 };
  const g = microGuest(t, {
    mode: 'protected',
    regions: [low, extra],
    code: 'again: mov 0x40000, %eax\nout %al, $1\njmp again',
  });
  g.memory.writeU8(0x40000, 7);
  t.equal(g.expect('io').data[0], 7);
  const { host } = g.memory.regions[1]!;
  g.vm.setUserMemoryRegion({ slot: 1, address: 0x40000, size: 0, host });
  g.expect('mmio').data[0] = 9;
  t.equal(g.expect('io').data[0], 9);
  g.vm.setUserMemoryRegion({ slot: 1, ...extra, host });
  t.equal(g.expect('io').data[0], 7);
});

t.test('slots that overlap or are not aligned are refused', async (t) => {
  const { vm, memory } = microGuest(t, { mode: 'real', regions: [low], code: 'hlt' });
  const { host } = memory.regions[0]!;
  const error = (code: string) => ({ name: 'KvmError', ioctl: 'KVM_SET_USER_MEMORY_REGION', code });
  t.throws(() => vm.setUserMemoryRegion({ slot: 1, address: 0x1000, size: 0x1000, host }), error('EEXIST'));
  t.throws(() => vm.setUserMemoryRegion({ slot: 1, address: 0x40001, size: 0x1000, host }), error('EINVAL'));
  t.throws(() => vm.setUserMemoryRegion({ slot: 1, address: 0x40000, size: 0x123, host }), error('EINVAL'));
});

const logged = { address: 0x40000, size: 100 * 0x1000, flags: k.KVM_MEM_LOG_DIRTY_PAGES };
const touch = `
  movb $1, 0x40000
  movb $1, 0x43fff
  movl $1, 0x70ffe
  movb 0x60000, %al
  out %al, $1
  movb $1, 0x50000
  hlt`;

t.test('the dirty log shows exactly the pages that were written', async (t) => {
  const g = microGuest(t, { mode: 'protected', regions: [low, logged], code: touch });
  t.strictSame(pages(g.vm.getDirtyLog(1)), []);
  g.expect('io');
  // 0x70ffe: four bytes across two pages; 0x60000 was only read.
  t.strictSame(pages(g.vm.getDirtyLog(1)), [0, 3, 0x30, 0x31]);
  t.strictSame(pages(g.vm.getDirtyLog(1)), [], 'reading clears');
  g.expect('hlt');
  t.strictSame(pages(g.vm.getDirtyLog(1)), [0x10]);
});

t.test('with manual protection the log is cleared page by page', async (t) => {
  const g = microGuest(t, { mode: 'protected', regions: [low, logged], code: touch });
  t.ok(g.vm.checkExtension(k.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2));
  g.vm.enableCap(k.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, [k.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE]);
  g.expect('io');
  t.strictSame(pages(g.vm.getDirtyLog(1)), [0, 3, 0x30, 0x31]);
  t.strictSame(pages(g.vm.getDirtyLog(1)), [0, 3, 0x30, 0x31], 'reading no longer clears');
  g.vm.clearDirtyLog(1, 0, 64, new Uint8Array([0b1000, 0, 0, 0, 0, 0, 1, 0]));
  t.strictSame(pages(g.vm.getDirtyLog(1)), [0, 0x31]);
  g.vm.clearDirtyLog(1, 64, 36, new Uint8Array(8));
  t.throws(() => g.vm.clearDirtyLog(1, 0, 0x10000, new Uint8Array(8)), RangeError);
  t.throws(() => g.vm.clearDirtyLog(1, 3, 1, new Uint8Array(8)), RangeError);
});

t.test('a log of a slot that does not exist or is not logged is an error', async (t) => {
  const { vm } = microGuest(t, { mode: 'real', regions: [low], code: 'hlt' });
  t.throws(() => vm.getDirtyLog(7), /slot 7/);
  t.throws(() => vm.getDirtyLog(0), { name: 'KvmError', ioctl: 'KVM_GET_DIRTY_LOG', code: 'ENOENT' });
});
