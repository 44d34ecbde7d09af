import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';
import { outcome, sha256, TSVMM, tsvmm } from '../support/tsvmm.js';

// Boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const { kernel } = guestFiles({});

/** The host's side, in a network and a process namespace of its own: all of it ends with them. */
const HOST = `
set -e
ip link set lo up
# What passt takes for the way to the world.
ip link add wan type dummy && ip link set wan up
ip addr add 192.0.2.10/24 dev wan && ip route add default via 192.0.2.1
ip addr add 2001:db8::10/64 dev wan nodad && ip route add default via 2001:db8::1 dev wan
ip tuntap add dev tap0 mode tap multi_queue
ip addr add 10.77.0.1/24 dev tap0 && ip addr add fd77::1/64 dev tap0 nodad && ip link set tap0 up
iperf3 --server >/dev/null 2>&1 &
busybox httpd -f -p 8080 -h "$1" &
(busybox nc -l -p 7001 >/dev/null; kill -9 $(busybox pidof passt passt.avx2)) &
(busybox nc -l -p 7002 >/dev/null; ip link del tap0) &
shift
exec "$@"
`;

/** The guest's: the host's programs in the host's root file system. */
const guest = (sum: string): string => `
check() { name=$1; shift; if "$@" >/tmp/log 2>&1; then echo "ok $name"; else echo "failed: $name"; cat /tmp/log; fi; }
host() { chroot /mnt /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
same() { [ "$1" = "$2" ] || { echo "$1"; false; }; }
fetch() { same "$(host curl -sg --max-time 60 "$1" | sha256sum)" "${sum}  -"; }
wait_for() { until [ "$(cat $1)" = $2 ]; do usleep 50000; done; }
tcp() { host iperf3 --connect-timeout 5000 -c 10.77.0.1 "$@"; }
mkdir /tmp
mount -t virtiofs root /mnt && mount -t tmpfs tmp /mnt/tmp
for f in proc sys dev; do mount -o bind /$f /mnt/$f; done
ip link set lo up
cd /sys/class/net
check address same "$(cat eth0/address)" 02:11:22:33:44:55
check mtu same "$(cat eth0/mtu) $(cat eth1/mtu)" "1400 65520"
ip addr add 10.77.0.2/24 dev eth0 && ip link set eth0 up && host ip addr add fd77::2/64 dev eth0 nodad

check ping host ping -c 3 -i 0.2 10.77.0.1
check ping6 host ping -c 3 -i 0.2 fd77::1
check ping-large host ping -c 2 -i 0.2 -s 60000 10.77.0.1
check tcp-out tcp -n 32M
check tcp-in tcp -n 32M -R
check tcp-both tcp -t 2 --bidir
check tcp6-parallel host iperf3 -c fd77::1 -n 16M -P 4
check udp-out tcp -u -b 40M -n 2M
check udp-in tcp -u -b 40M -n 2M -R
check udp-fragments tcp -u -b 40M -n 2M -l 9000
check download fetch http://10.77.0.1:8080/file

check queues host ethtool -L eth0 combined 2
check queues-tcp tcp -n 16M -P 2
check queues-back host ethtool -L eth0 combined 1
check offloads-off host ethtool -K eth0 tso off tx off
check offloads-off-tcp tcp -n 4M
ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up
host ip addr add fd77::2/64 dev eth0 nodad
check other-address host ping -c 2 -i 0.2 10.77.0.1
ip link set eth0 promisc on; ip link set eth0 promisc off
check not-promiscuous host ping -c 2 -i 0.2 fd77::1

ip link set eth1 up
printf '#!/bin/busybox sh\\n[ "$1" = bound ] || exit 0\\nip addr add $ip/$mask dev eth1; ip route add default via $router\\n' >/bin/dhcp
chmod +x /bin/dhcp
check dhcp udhcpc -i eth1 -n -q -s /bin/dhcp
check passt-download fetch http://192.0.2.1:8080/file
until ip addr show eth1 | grep -q 'inet6 2001:db8:'; do usleep 50000; done
until ! ip addr show eth1 | grep -q tentative; do usleep 50000; done
check passt-download6 fetch 'http://[2001:db8::10]:8080/file'
nc 10.77.0.1 7001 </dev/null
wait_for eth1/carrier 0; echo "ok passt-killed"
check still-there host ping -c 2 -i 0.2 10.77.0.1
nc 10.77.0.1 7002 </dev/null
wait_for eth0/carrier 0; echo "ok tap-deleted"
poweroff -f
`;

const NAMES = (
  'address mtu ping ping6 ping-large tcp-out tcp-in tcp-both tcp6-parallel udp-out udp-in udp-fragments download ' +
  'queues queues-tcp queues-back offloads-off offloads-off-tcp other-address not-promiscuous dhcp passt-download ' +
  'passt-download6 passt-killed still-there tap-deleted'
).split(' ');

t.test('a TAP device and passt carry what programs send, and their end is an unplugged cable', async (t) => {
  const folder = temporaryFolder(t);
  const content = randomBytes(16 << 20);
  writeFileSync(join(folder, 'file'), content);
  const initrd = makeInitramfs(t, guest(sha256(content)));
  const command = [
    ...[process.execPath, TSVMM, 'boot', kernel, '--initrd', initrd, '--append', 'quiet'],
    ...['--memory', '256M', '--cpus', '2', '--share', 'root=/,ro', '--deadline', '400'],
    ...['--net', 'tap=tap0,mac=02:11:22:33:44:55,mtu=1400,queues=2', '--net', 'passt'],
  ];
  const namespaces = ['--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const child = spawn('unshare', [...namespaces, 'bash', '-c', HOST, 'host', folder, ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { status, stdout, stderr } = await outcome(child);
  const lines = stdout.replaceAll('\r', '').split('\n');
  t.same(
    lines.filter((line) => line.startsWith('ok ')).map((line) => line.slice(3)),
    NAMES,
    stdout,
  );
  t.match(stderr, /^tsvmm: net1: passt has gone: the guest's cable is unplugged$/m);
  t.match(stderr, /^tsvmm: net1: passt has ended \(SIGKILL\)/m);
  t.match(stderr, /^tsvmm: net0: tap tap0 has gone: the guest's cable is unplugged$/m);
  t.equal(status, 0, stderr);
});

t.test('a network that cannot be had', async (t) => {
  const initrd = makeInitramfs(t, 'poweroff -f');
  const boot = ['boot', kernel, '--initrd', initrd];
  const tap = await tsvmm([...boot, '--net', 'tap=lo']);
  t.same([tap.status, tap.stderr], [125, 'tsvmm: tap lo: is no TAP device\n']);
  const passt = await tsvmm([...boot, '--net', 'passt'], '', { env: { ...process.env, PATH: '/nowhere' } });
  t.same(
    [passt.status, passt.stderr],
    [125, 'tsvmm: network: passt is not installed; on Debian: apt-get install passt\n'],
  );
});
