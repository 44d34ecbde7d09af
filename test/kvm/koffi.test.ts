/** The same calls made through libc by koffi, without a line of the addon: both must give the same answer. */
import t from 'tap';
import { addon } from '../../src/addon/index.js';
import * as k from '../../src/kvm/constants.js';
import { Kvm } from '../../src/kvm/kvm.js';

t.test('the addon and libc agree', async (t) => {
  const { default: koffi } = await import('koffi');
  const libc = koffi.load('libc.so.6');
  const open = libc.func('int open(const char *path, int flags, int mode)');
  const close = libc.func('int close(int fd)');
  const ioctlValue = libc.func('int ioctl(int fd, unsigned long request, unsigned long arg)');
  const ioctlBytes = libc.func('int ioctl(int fd, unsigned long request, _Inout_ uint8_t *arg)');

  const kvm = Kvm.open();
  t.teardown(() => kvm.close());
  const fd: number = open('/dev/kvm', 2, 0);
  t.ok(fd >= 0);
  t.teardown(() => close(fd));

  t.test('every capability', async (t) => {
    for (let capability = 0; capability < 260; capability++) {
      const expected: number = ioctlValue(fd, k.KVM_CHECK_EXTENSION, capability);
      if (kvm.checkExtension(capability) !== expected) {
        t.fail(`capability ${capability}: ${kvm.checkExtension(capability)} and ${expected}`);
      }
    }
    t.equal(ioctlValue(fd, k.KVM_GET_VCPU_MMAP_SIZE, 0), kvm.vcpuMmapSize);
  });

  t.test('the supported CPUID, byte by byte', async (t) => {
    const cpuid = kvm.supportedCpuid();
    // Registers that tell where the call ran (APIC ids of the host's processor) are its own matter.
    const bytes = Buffer.alloc(cpuid.view.byteLength);
    bytes.writeUInt32LE(cpuid.capacity, 0);
    t.equal(ioctlBytes(fd, k.KVM_GET_SUPPORTED_CPUID, bytes), 0);
    t.equal(bytes.readUInt32LE(0), cpuid.count);
    const ours = Buffer.from(cpuid.view.buffer);
    for (const copy of [ours, bytes]) {
      for (let at = k.sizes.kvm_cpuid2; at < copy.length; at += k.sizes.kvm_cpuid_entry2) {
        const leaf = copy.readUInt32LE(at);
        if (leaf === 1) {
          copy[at + 19] = 0;
        }
        if (leaf === 0xb || leaf === 0x1f || leaf === 0x8000001e) {
          copy.fill(0, at + 12, at + 28);
        }
      }
    }
    t.ok(ours.equals(bytes));
  });

  t.test('the list of MSRs', async (t) => {
    const bytes = Buffer.alloc(4 + 4 * 1024);
    bytes.writeUInt32LE(1024, 0);
    t.equal(ioctlBytes(fd, k.KVM_GET_MSR_INDEX_LIST, bytes), 0);
    const count = bytes.readUInt32LE(0);
    t.strictSame(
      kvm.msrIndexList(),
      Array.from({ length: count }, (_, i) => bytes.readUInt32LE(4 + 4 * i)),
    );
  });

  t.test('failures', async (t) => {
    const errors: [number, number][] = [
      [k.KVM_RUN, 0],
      [k.KVM_GET_API_VERSION, 1],
      [k.KVM_CREATE_VM, 99],
    ];
    for (const [request, arg] of errors) {
      t.equal(ioctlValue(fd, request, arg), -1);
      t.equal(addon().ioctl(kvm.fd, request, arg), -koffi.errno());
    }
    t.equal(ioctlValue(-1, k.KVM_GET_API_VERSION, 0), -1);
    t.equal(addon().ioctl(-1, k.KVM_GET_API_VERSION), -koffi.errno());
  });

  t.test('registers set by one are read by the other', async (t) => {
    const vm = kvm.createVm();
    t.teardown(() => vm.close());
    const vcpu = vm.createVcpu(0);
    t.teardown(() => vcpu.close());
    vcpu.setRegs({ rax: 0x1122334455667788n, rip: 0xfff0n });
    const bytes = Buffer.alloc(k.sizes.kvm_regs);
    t.equal(ioctlBytes(vcpu.fd, k.KVM_GET_REGS, bytes), 0);
    t.equal(bytes.readBigUInt64LE(0), 0x1122334455667788n);
    t.equal(bytes.readBigUInt64LE(16 * 8), 0xfff0n);
    bytes.writeBigUInt64LE(0x99n, 8);
    t.equal(ioctlBytes(vcpu.fd, k.KVM_SET_REGS, bytes), 0);
    t.equal(vcpu.getRegs().rbx, 0x99n);
  });
});

t.test('arguments of the wrong kind are refused before the kernel sees them', async (t) => {
  const kvm = Kvm.open();
  t.teardown(() => kvm.close());
  const { ioctl, mmapVcpu } = addon();
  t.throws(() => ioctl(kvm.fd, k.KVM_GET_REGS, new Uint8Array(143)), /143 bytes.*144/);
  t.throws(() => ioctl(kvm.fd, k.KVM_CHECK_EXTENSION, 0.5), TypeError);
  t.throws(() => ioctl(Number.NaN, k.KVM_CHECK_EXTENSION, 0), TypeError);
  t.throws(() => ioctl(kvm.fd, k.KVM_CHECK_EXTENSION, 1n << 64n), RangeError);
  t.throws(() => ioctl(kvm.fd, k.KVM_GET_DIRTY_LOG, new Uint8Array(16), new Uint8Array(8), 9), RangeError);
  t.equal(mmapVcpu(kvm.fd, 4096), -19, 'ENODEV: /dev/kvm itself has no page');
  t.throws(() => kvm.checkExtension(Number.NaN), TypeError);
});
