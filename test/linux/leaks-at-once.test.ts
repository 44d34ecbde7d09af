import t from 'tap';
import { makeBundle } from '../support/bundle.js';
import { Containers } from '../support/container.js';
import { inventory } from '../support/inventory.js';

t.test('twenty at once', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'while :; do sleep 100; done');
  const before = inventory();
  const ids = Array.from({ length: 20 }, (_, i) => `c${i}`);
  const created = await Promise.all(ids.map((id) => containers.create(id, bundle)));
  t.same(
    created.filter(({ status }) => status !== 0),
    [],
  );
  const started = await Promise.all(ids.map((id) => containers.run('start', id)));
  t.same(
    started.filter(({ status }) => status !== 0),
    [],
  );
  const deleted = await Promise.all(ids.map((id) => containers.run('delete', '--force', id)));
  t.same(
    deleted.filter(({ status }) => status !== 0),
    [],
  );
  t.same(inventory(), before);
  t.same(containers.left(), []);
});
