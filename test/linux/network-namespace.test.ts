import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Spec } from '../../src/runtime/spec/types.js';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { outcome, TSVMM } from '../support/tsvmm.js';

// Boots Linux, in the testbed under emulation.
t.setTimeout(600_000);

/** The host's side, in namespaces of its own: all of it ends with them. `$D` is the test's folder. */
const HOST = `
PATH=$PATH:/usr/sbin:/sbin
D=$1; NODE=$2; TSVMM=$3
check() { name=$1; shift; if "$@" >$D/log 2>&1; then echo "ok $name"; else echo "failed: $name"; cat $D/log; fi; }
same() { [ "$1" = "$2" ] || { echo "expected: $1"; echo "found: $2"; false; }; }
vm() { "$NODE" "$TSVMM" --root $D/state "$@" </dev/null; }
fetch() { same page "$(curl -sg --max-time 10 "$1/page")"; }
up() { for i in $(seq 240); do fetch "$1" >/dev/null && return; sleep 0.25; done; false; }
often() { for i in $(seq 20); do fetch "$1" || return; done; }
nothing_left() {
  same "" "$(ip -n pod -o link | grep tsvmm)" && same "" "$(tc -n pod qdisc show ingress | grep ingress)"
}
dead() { while kill -0 $1 2>/dev/null; do sleep 0.1; done; }
pid() { vm state $1 | sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p'; }

ip link set lo up
# What passt takes for the way to the world.
ip link add wan type dummy && ip link set wan up
ip addr add 192.0.2.10/24 dev wan && ip route add default via 192.0.2.1
ip addr add 2001:db8::10/64 dev wan nodad && ip route add default via 2001:db8::1 dev wan
mount --bind $D/resolv.conf /etc/resolv.conf
ip link add br0 type bridge && ip link set br0 mtu 1400 up
ip addr add 10.77.0.1/24 dev br0 && ip addr add fd77::1/64 dev br0 nodad
mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add pod
ip link add eth0 netns pod mtu 1400 type veth peer name pod0 mtu 1400 && ip link set pod0 master br0 up
ip -n pod link set lo up; ip -n pod link set eth0 up
ip -n pod addr add 10.77.0.2/24 brd + dev eth0 && ip -n pod addr add fd77::2/64 dev eth0 nodad
ip -n pod route add default via 10.77.0.1 && ip -n pod route add default via fd77::1 metric 7
ip -n pod route add 10.99.0.0/16 via 10.77.0.9 metric 5 src 10.77.0.2 mtu 1300
ip -n pod route add 192.0.2.5 via 203.0.113.1 dev eth0 onlink && ip -n pod route add blackhole 10.66.0.0/16
ip -n pod neigh add 10.77.0.9 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
# The link-local address is there once nobody has objected.
until ip -n pod -6 addr show scope link -tentative | grep -q inet6; do sleep 0.1; done
{ ip -n pod route; ip -n pod -6 route; ip -n pod neigh show nud permanent; ip -n pod -o addr | awk '{ print $2, $3, $4 }'; } >$D/expected
iperf3 --server >/dev/null 2>&1 &
busybox httpd -f -p 8080 -h $D/www &
python3 $D/dns.py 10.77.0.1 & python3 $D/dns.py 127.0.0.53 &
ip netns exec pod python3 $D/dns.py 127.0.0.11 &

check one-machine vm run --bundle $(cat $D/one.path) one
cat $D/log
check nothing-left nothing_left

check create-a vm create --bundle $(cat $D/a.path) a
check create-b vm create --bundle $(cat $D/b.path) b
check start-a vm start a
check start-b vm start b
check up-a up http://10.77.0.2:8001
check up-b up http://10.77.0.2:8002
check twenty-a often http://10.77.0.2:8001
check twenty-b often http://10.77.0.2:8002
check twenty-a6 often http://[fd77::2]:8001
check twenty-b6 often http://[fd77::2]:8002
ping -c 4 -i 0.3 10.77.0.2 >$D/ping; ping -c 4 -i 0.3 fd77::2 >>$D/ping
check one-answers same "2 0" "$(grep -c ' 0% packet loss' $D/ping) $(grep -c DUP $D/ping)"
A=$(pid a); B=$(pid b)
kill -9 $A; dead $A
check b-without-a often http://10.77.0.2:8002
check stopped same stopped "$(vm state a | sed -n 's/.*"status": *"\\(.*\\)".*/\\1/p')"
check delete-a vm delete a
check b-after-delete often http://[fd77::2]:8002
check b-answers ping -c 2 -i 0.3 10.77.0.2
check b-refuses same 7 "$(curl -s --max-time 10 http://10.77.0.2:8001; echo $?)"
kill -9 $B; dead $B
check filters-left same 1 "$(tc -n pod qdisc show ingress | grep -c ingress)"
check delete-b vm delete b
check nothing-left-of-pod nothing_left
check host-kernel-again ping -c 1 10.77.0.2

ip link add card type veth peer name far && ip link set card up && ip link set far up && ip addr add 10.78.0.1/24 dev far
for kind in macvlan ipvlan; do
  mode=bridge; [ $kind = macvlan ] || mode=l2
  ip netns add $kind
  ip link add eth0 netns $kind link card type $kind mode $mode && ip -n $kind addr add 10.78.0.2/24 dev eth0 && ip -n $kind link set eth0 up
  check $kind vm run --bundle $(cat $D/$kind.path) $kind
  cat $D/log
  check $kind-of-the-host-again ip netns exec $kind ping -c 1 10.78.0.1
  ip netns del $kind
done

TSVMM_PASST_ARGUMENTS="-t 8081:80" "$NODE" "$TSVMM" --root $D/state run --network passt --bundle $(cat $D/user.path) user </dev/null >$D/user.log 2>&1 &
check published up http://192.0.2.10:8081
touch $D/done; wait $!
cat $D/user.log
# It ends when it reads the end of its socket.
until ! busybox pidof passt passt.avx2 >/dev/null; do sleep 0.1; done; echo "ok passt-ended"
vm create --bundle $(cat $D/user.path) host
vm create --bundle $(cat $D/nowhere.path) nowhere
check nothing-in-the-state same "" "$(ls $D/state | grep -v -e lock -e @logs)"
`;

const GUEST = `
PATH=/usr/sbin:/usr/bin:/sbin:/bin
check() { name=$1; shift; if "$@" >/tmp/log 2>&1; then echo "ok $name"; else echo "failed: $name"; cat /tmp/log; fi; }
same() { [ "$1" = "$2" ] || { echo "expected: $1"; echo "found: $2"; false; }; }
tcp() { iperf3 --connect-timeout 10000 "$@"; }
resolve() { same 192.0.2.77 "$(getent hosts web.example.org | awk '{ print $1 }')"; }
fetch() { same page "$(curl -sg --max-time 30 "$1/page")"; }
`;

const NAMESPACE_GUEST = `${GUEST}
same_as_the_namespace() {
  { ip route; ip -6 route; ip neigh show nud permanent; ip -o addr | awk '{ print $2, $3, $4 }'; } >/tmp/found
  diff /mnt/expected /tmp/found
}
check same-as-the-namespace same_as_the_namespace
check interfaces same "eth0 lo" "$(echo $(ls /sys/class/net))"
check mtu same 1400 "$(cat /sys/class/net/eth0/mtu)"
check sysctl same "30000 31000" "$(echo $(cat /proc/sys/net/ipv4/ip_local_port_range))"
check ping ping -c 2 -i 0.2 10.77.0.1
check ping6 ping -c 2 -i 0.2 fd77::1
check ping-whole-mtu ping -M do -s 1372 -c 1 10.77.0.1
check tcp-out tcp -c 10.77.0.1 -n 16M
check tcp-in tcp -c 10.77.0.1 -n 16M -R
check tcp6 tcp -c fd77::1 -n 4M
check dns eval 'busybox nslookup web.example.org 10.77.0.1 | grep 192.0.2.77'
check dns-of-the-namespace resolve
check dns-of-the-namespace-by-tcp env RES_OPTIONS=use-vc getent hosts web.example.org
`;
const PASST_GUEST = `${GUEST}
check passt-download fetch http://192.0.2.1:8080
check passt-download6 fetch 'http://[2001:db8::1]:8080'
check passt-dns resolve
busybox httpd -f -p 80 -h /mnt/www & httpd=$!
# Once it has been asked.
until [ -e /mnt/done ]; do sleep 0.1; done; kill $httpd
`;

/** A name server at one address, by UDP and TCP, that knows one name. */
const DNS = `
import socket, sys, threading
def answer(query):
    end = query.index(0, 12) + 5
    v4 = query[end - 4:end - 2] == bytes([0, 1])
    record = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]) if v4 else b''
    return query[:2] + bytes([0x81, 0x80, 0, 1, 0, v4, 0, 0, 0, 0]) + query[12:end] + record
def serve_tcp():
    while True:
        connection, _ = tcp.accept()
        with connection, connection.makefile('rwb') as file:
            while length := file.read(2):
                reply = answer(file.read(int.from_bytes(length, 'big')))
                file.write(len(reply).to_bytes(2, 'big') + reply)
                file.flush()
tcp = socket.create_server((sys.argv[1], 53))
threading.Thread(target=serve_tcp).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 53))
while True:
    query, sender = udp.recvfrom(512)
    udp.sendto(answer(query), sender)
`;

const NAMES = (
  'one-machine same-as-the-namespace interfaces mtu sysctl ping ping6 ping-whole-mtu tcp-out tcp-in tcp6 dns dns-of-the-namespace dns-of-the-namespace-by-tcp ' +
  'nothing-left create-a create-b start-a start-b up-a up-b twenty-a twenty-b twenty-a6 twenty-b6 one-answers b-without-a stopped ' +
  'delete-a b-after-delete b-answers b-refuses filters-left delete-b nothing-left-of-pod host-kernel-again macvlan macvlan-ping macvlan-of-the-host-again ipvlan ipvlan-ping ipvlan-of-the-host-again published ' +
  'passt-download passt-download6 passt-dns passt-ended nothing-in-the-state'
).split(' ');

interface Wish {
  /** Undefined: no network namespace at all. */
  readonly network: { readonly path?: string } | undefined;
  readonly sysctl?: Record<string, string>;
  readonly resolvConf?: string;
}

t.test('a network namespace, a pod of two machines, and passt', async (t) => {
  const folder = temporaryFolder(t);
  const file = (name: string, content: string): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  /** The host's programs run in the guest, from its root file system. */
  const bundle = (name: string, script: string, { network, sysctl, resolvConf }: Wish): void => {
    const change = (spec: Spec): void => {
      spec.root = { path: '/', readonly: true };
      spec.process.args = ['/bin/bash', '-c', script];
      spec.mounts?.push(
        { destination: '/tmp', type: 'tmpfs', source: 'tmpfs' },
        { destination: '/mnt', type: 'bind', source: folder, options: ['rbind', 'ro'] },
      );
      if (resolvConf !== undefined) {
        spec.mounts?.push({
          destination: '/etc/resolv.conf',
          type: 'bind',
          source: resolvConf,
          options: ['bind'],
        });
      }
      if (spec.linux === undefined) return;
      const others = spec.linux.namespaces?.filter(({ type }) => type !== 'network') ?? [];
      spec.linux.namespaces = network === undefined ? others : [...others, { type: 'network', ...network }];
      if (sysctl !== undefined) spec.linux.sysctl = sysctl;
    };
    file(`${name}.path`, makeBundle(t, '', change));
  };
  mkdirSync(join(folder, 'www'));
  file('www/page', 'page');
  file('dns.py', DNS);
  file('resolv.conf', 'nameserver 127.0.0.53\n');
  const pod = { network: { path: '/run/netns/pod' } };
  bundle('one', NAMESPACE_GUEST, {
    ...pod,
    sysctl: { 'net.ipv4.ip_local_port_range': '30000 31000' },
    resolvConf: file('resolv.pod', 'nameserver 127.0.0.11\n'),
  });
  bundle('a', 'busybox httpd -f -p 8001 -h /mnt/www', pod);
  bundle('b', 'busybox httpd -f -p 8002 -h /mnt/www', pod);
  bundle('user', PASST_GUEST, { network: undefined });
  for (const kind of ['macvlan', 'ipvlan']) {
    const script = `${GUEST}\ncheck ${kind}-ping ping -c 2 -i 0.2 10.78.0.1`;
    bundle(kind, script, { network: { path: `/run/netns/${kind}` } });
  }
  bundle('nowhere', 'true', { network: { path: '/nowhere' } });

  const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const child = spawn(
    'unshare',
    [...namespaces, 'bash', '-c', HOST, 'host', folder, process.execPath, TSVMM],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const { status, stdout, stderr } = await outcome(child);
  t.same(
    stdout.split('\n').flatMap((line) => (line.startsWith('ok ') ? line.slice(3) : [])),
    NAMES,
    stdout,
  );
  t.equal(status, 0, stdout);
  t.match(stderr, /^tsvmm: the bundle asks for the host's network/m);
  t.match(stderr, /^tsvmm: config\.json: linux\.namespaces\[5\]\.path: \/nowhere: no such file or folder$/m);
});
