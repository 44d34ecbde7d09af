import t from 'tap';
import { makeBundle } from '../support/bundle.js';
import { Guest } from '../support/guest.js';

// Boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const ENVIRONMENT = { cwd: '/', env: ['PATH=/bin'] };
const shell = (script: string) => ({ ...ENVIRONMENT, args: ['/bin/sh', '-c', script] });

t.test('containers and their execs, as the agent runs them', async (t) => {
  const guest = await Guest.boot(t, makeBundle(t, ''));
  const { client } = guest;

  await t.test('a created container waits, and takes execs', async (t) => {
    const own = guest.streams();
    const params = guest.container('one', 'cat; echo done >&2; exit 3', own.ports);
    const { pid } = await client.create(params);
    t.ok(pid > 1);
    await t.rejects(client.create(params), { message: 'container one exists' });
    const streams = guest.streams();
    await client.exec({
      id: 'one',
      exec: 'a',
      process: shell('echo in $1; ps; exit 5'),
      streams: streams.ports,
    });
    await guest.told('execExit one a 5');
    t.match(await streams.output, /^in\n(?!.*cat)/s, 'the process itself does not run yet');
    t.equal(own.text(), '');
    await client.start('one');
    await t.rejects(client.start('one'), { message: 'container one is not in the state "created"' });
    (await own.input).end('through');
    await guest.told('exit one 3');
    t.same([await own.output, await own.errors], ['through', 'done\n']);
    await t.rejects(client.start('one'), { message: 'there is no container one' });
  });

  await t.test('what crun refuses is said in its words', async (t) => {
    const own = guest.streams();
    const missing = guest.container('two', '', own.ports, (spec) => {
      spec.process.args = ['nothing-like-it'];
    });
    const message = 'executable file `nothing-like-it` not found in $PATH: No such file or directory';
    await t.rejects(client.create(missing), { name: 'RefusedError', message });
    await client.create(guest.container('two', 'cat', guest.streams().ports));
    await client.start('two');
    await t.rejects(
      client.exec({
        id: 'two',
        exec: 'a',
        process: { ...ENVIRONMENT, args: ['nothing-like-it'] },
        streams: guest.streams().ports,
      }),
      { name: 'RefusedError', message },
    );
    await client.kill('two', 9);
    await guest.told('exit two 137');
  });

  await t.test('SIGKILL ends a container that was never started', async () => {
    await client.create(guest.container('three', 'echo never', guest.streams().ports));
    await client.kill('three', 9);
    await guest.told('exit three 137');
  });
});
