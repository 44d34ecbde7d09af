import t from 'tap';
import { KvmError, openError } from '../../../src/kvm/errors.js';

t.test('an error names call and errno', async (t) => {
  const error = new KvmError('KVM_CREATE_VM', 12);
  t.equal(error.message, 'KVM_CREATE_VM: ENOMEM');
  t.match(error, { name: 'KvmError', ioctl: 'KVM_CREATE_VM', errno: 12, code: 'ENOMEM' });
  t.equal(new KvmError('mmap', 12, 'the page').message, 'mmap: ENOMEM: the page');
});

t.test('an error without errno has a reason only', async (t) => {
  const error = new KvmError('KVM_GET_MSRS', 0, 'MSR 0x10 is refused');
  t.equal(error.message, 'KVM_GET_MSRS: MSR 0x10 is refused');
  t.equal(error.code, undefined);
});

t.test('opening tells what to do', async (t) => {
  t.match(openError('/dev/kvm', 2).message, /there is no \/dev\/kvm.*modprobe/);
  t.match(openError('/dev/kvm', 13).message, /no rights.*group kvm/);
  t.match(openError('/dev/kvm', 19).message, /no driver/);
  t.match(openError('/dev/kvm', 24), { code: 'EMFILE', message: /cannot open/ });
});
