import t from 'tap';
import * as k from '../../src/kvm/constants.js';
import { EventFd } from '../support/eventfd.js';
import { microGuest } from '../support/micro-guest.js';

t.test('a write to the address signals and does not exit', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    code: 'movl $7, 0xc0000050\nmovl $8, 0xc0000050\nmovl $9, 0xc0000054\nhlt',
  });
  const event = new EventFd(t);
  g.vm.assignIoeventfd({ fd: event.fd, address: 0xc0000050, length: 4 });
  t.match(g.expect('mmio'), { direction: 'write', address: 0xc0000054n });
  t.equal(event.take(), 2);
  g.expect('hlt');
});

t.test('with a match, each value has an eventfd of its own and the others exit', async (t) => {
  const g = microGuest(t, {
    mode: 'protected',
    code: 'movl $0, 0xc0000050\nmovl $1, 0xc0000050\nmovl $1, 0xc0000050\nmovl $2, 0xc0000050\nhlt',
  });
  const queues = [new EventFd(t), new EventFd(t)];
  queues.forEach(({ fd }, i) => {
    g.vm.assignIoeventfd({ fd, address: 0xc0000050, length: 4, datamatch: BigInt(i) });
  });
  t.strictSame([...g.expect('mmio').data], [2, 0, 0, 0]);
  t.strictSame(
    queues.map((queue) => queue.take()),
    [1, 2],
  );
});

t.test('only writes of the length signal; length 0 takes any', async (t) => {
  const code = 'movb $1, 0xc0000050\nmovw $1, 0xc0000050\nmovl $1, 0xc0000050\nhlt';
  const exact = microGuest(t, { mode: 'protected', code });
  const event = new EventFd(t);
  exact.vm.assignIoeventfd({ fd: event.fd, address: 0xc0000050, length: 2 });
  t.equal(exact.expect('mmio').data.length, 1);
  t.equal(exact.expect('mmio').data.length, 4);
  t.equal(event.take(), 1);

  const any = microGuest(t, { mode: 'protected', code });
  t.ok(any.vm.checkExtension(k.KVM_CAP_IOEVENTFD_ANY_LENGTH));
  any.vm.assignIoeventfd({ fd: event.fd, address: 0xc0000050, length: 0 });
  any.expect('hlt');
  t.equal(event.take(), 3);
});

t.test('a port signals', async (t) => {
  const g = microGuest(t, { mode: 'real', code: 'out %al, $0x60\nout %ax, $0x60\nout %al, $0x61\nhlt' });
  const event = new EventFd(t);
  g.vm.assignIoeventfd({ fd: event.fd, address: 0x60, length: 1, pio: true });
  t.equal(g.expect('io').size, 2);
  t.equal(g.expect('io').port, 0x61);
  t.equal(event.take(), 1);
});

t.test('after it is taken off, the write exits again', async (t) => {
  const g = microGuest(t, { mode: 'protected', code: 'again: movl $1, 0xc0000050\nout %al, $1\njmp again' });
  const event = { fd: new EventFd(t).fd, address: 0xc0000050, length: 4 } as const;
  g.vm.assignIoeventfd(event);
  g.expect('io');
  g.vm.deassignIoeventfd(event);
  g.expect('mmio');
  t.throws(() => g.vm.deassignIoeventfd(event), { ioctl: 'KVM_IOEVENTFD', code: 'ENOENT' });
});

t.test('what cannot be is refused', async (t) => {
  const { vm } = microGuest(t, { mode: 'real', code: 'hlt' });
  const { fd } = new EventFd(t);
  const address = 0xc0000050;
  t.throws(() => vm.assignIoeventfd({ fd: 0x7fffffff, address, length: 4 }), {
    ioctl: 'KVM_IOEVENTFD',
    code: 'EBADF',
  });
  t.throws(() => vm.assignIoeventfd({ fd, address, length: 0, datamatch: 1n }), { code: 'EINVAL' });
  vm.assignIoeventfd({ fd, address, length: 4 });
  t.throws(() => vm.assignIoeventfd({ fd, address, length: 4 }), { code: 'EEXIST' });
});
