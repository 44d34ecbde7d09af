import { readFileSync } from 'node:fs';
import t from 'tap';
import { makeBundle } from '../support/bundle.js';
import { Containers, ended } from '../support/container.js';
import { inventory } from '../support/inventory.js';
import { outcome, start } from '../support/tsvmm.js';

t.test('fifty containers one after another', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'exit 5');
  await containers.run('run', '--bundle', bundle, 'warm');
  const before = inventory();
  const statuses = new Set<number>();
  for (let i = 0; i < 50; i++)
    statuses.add((await containers.run('run', '--bundle', bundle, `c${i}`)).status);
  t.same([...statuses], [5]);
  t.same(inventory(), before);
  t.same(containers.left(), []);
});

t.test('killed at any moment', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'while :; do sleep 100; done');
  const before = inventory();
  // Each step of a creation is hit by some of these, on any machine.
  for (const [index, ms] of [50, 200, 400, 800, 1600, 3200].entries()) {
    const id = `c${index}`;
    const command = start(['--root', containers.root, 'create', '--bundle', bundle, id], { stdio: 'ignore' });
    const over = outcome(command);
    await new Promise((resolve) => setTimeout(resolve, ms));
    command.kill('SIGKILL');
    await over;
    t.equal((await containers.run('delete', '--force', id)).status, 0, `create, killed after ${ms} ms`);
  }
  for (const [index, ms] of [100, 700, 1500].entries()) {
    const id = `s${index}`;
    const command = start(['--root', containers.root, 'create', '--bundle', bundle, id], { stdio: 'ignore' });
    const over = outcome(command);
    await new Promise((resolve) => setTimeout(resolve, ms));
    const sandbox = sandboxOf(command.pid);
    if (sandbox !== undefined) {
      process.kill(sandbox, 'SIGKILL');
      await ended(sandbox);
    }
    await over;
    t.equal((await containers.run('delete', '--force', id)).status, 0, `sandbox, killed after ${ms} ms`);
  }
  await settled(before);
  t.same(inventory(), before);
  t.same(containers.left(), []);
});

/** The sandbox that a `create` has started, where it has come so far. */
function sandboxOf(create: number | undefined): number | undefined {
  const children = readFileSync(`/proc/${create}/task/${create}/children`, 'utf8').trim().split(' ');
  const [first = ''] = children;
  return first === '' ? undefined : Number(first);
}

/** A sandbox whose create was killed ends by itself, as soon as it notices. */
async function settled(before: Record<string, string[]>): Promise<void> {
  while (inventory().processes?.length !== before.processes?.length) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
