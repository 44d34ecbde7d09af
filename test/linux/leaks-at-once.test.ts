import t from 'tap';
import { makeBundle } from '../support/bundle.js';
import { Containers } from '../support/container.js';
import { inventory } from '../support/inventory.js';

t.test('twenty at once', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'exit 5');
  await containers.run('run', '--boot-timeout', '300', '--bundle', bundle, 'warm');
  const before = inventory();
  const ended = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      containers.run('run', '--boot-timeout', '300', '--bundle', bundle, `c${i}`),
    ),
  );
  t.same(
    ended.filter(({ status }) => status !== 5),
    [],
  );
  t.same(inventory(), before);
  t.same(containers.left(), []);
});
