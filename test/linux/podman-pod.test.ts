import t from 'tap';
import { Engines } from '../support/engines.js';
import { openPodman } from '../support/podman.js';

// Each container boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const engines = await Engines.open(t);
const { ok } = await openPodman(engines);

t.test('a pod: its containers share a name and an address', async (t) => {
  // podman 4.3 denies all devices to a pod's own cgroup where systemd does not manage it: no runtime starts a container in there.
  await ok(['pod', 'create', '--name', 'pod', '--share-parent=false', '--publish', '18081:80']);
  const serve = 'httpd -f -h /www -p 80';
  await ok(['run', '-d', '--pod', 'pod', '--name', 'web', 'box', 'sh', '-c', serve]);
  await engines.until(['curl', '-sS', '--max-time', '30', 'http://127.0.0.1:18081/'], 'served from inside');
  t.equal(await ok(['exec', 'web', 'hostname']), 'pod');
  const [address = ''] = /10\.88\.0\.\d+/.exec(await ok(['exec', 'web', 'ip', '-o', 'address'])) ?? [];
  t.match(address, /^10\.88\.0\./);
  const other = await ok(['run', '--rm', '--pod', 'pod', 'box', 'sh', '-c', 'hostname; ip -o address']);
  t.match(other, /^pod\n/);
  t.ok(other.includes(address), 'the other container has the same address');
  t.match(await ok(['pod', 'ps', '--format', '{{.Name}} {{.Status}}']), /pod (Running|Degraded)/);
  await ok(['pod', 'stop', '--time', '1', 'pod']);
  await ok(['pod', 'rm', '--force', 'pod']);
});

t.test('nothing is left behind', async (t) => {
  t.same(await engines.leftovers(/podman pause/), []);
});
