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

  await t.test('many execs at once, with input, output and status of their own', async (t) => {
    await client.create(guest.container('four', 'sleep 1000', guest.streams().ports));
    await client.start('four');
    const block = 'x'.repeat(100_000);
    const execs = Array.from({ length: 5 }, async (_, i) => {
      const streams = guest.streams();
      const process = shell(`cat; echo err${i} >&2; exit ${i}`);
      await client.exec({ id: 'four', exec: `e${i}`, process, streams: streams.ports });
      (await streams.input).end(`${i}${block}`);
      await guest.told(`execExit four e${i} ${i}`);
      return [(await streams.output) === `${i}${block}`, await streams.errors];
    });
    t.same(
      await Promise.all(execs),
      Array.from({ length: 5 }, (_, i) => [true, `err${i}\n`]),
    );

    // One that leaves a process with its output behind ends all the same.
    const left = guest.streams();
    const process = shell('sleep 1000 & echo out; kill -USR1 $$');
    await client.exec({ id: 'four', exec: 'left', process, streams: left.ports });
    await guest.told('execExit four left 138');
    t.equal(await left.output, 'out\n');

    const bad = { id: 'four', exec: 'bad', process: { ...ENVIRONMENT, args: [] }, streams: {} };
    await t.rejects(client.exec(bad), { message: /process\.args: expected an array that begins/ });

    const preserved = guest.streams();
    const [first, second] = [guest.connection(1990), guest.connection(1991)];
    await client.exec({
      id: 'four',
      exec: 'fds',
      process: shell('echo three >&3; cat /dev/fd/4; ls /proc/self/fd | wc -l'),
      streams: preserved.ports,
      preserved: [
        { port: 1990, access: 'write' },
        { port: 1991, access: 'read' },
      ],
    });
    (await second).end('four');
    await guest.told('execExit four fds 0');
    t.equal(await preserved.output, 'four6\n', 'five of the shell, and that of ls');
    t.equal(await text(await first), 'three\n');
  });

  await t.test('an exec with a terminal, resized and interrupted', async (t) => {
    const streams = guest.streams('terminal');
    const script = `stty size; trap 'echo interrupted; stty size; exit 6' INT; echo ready; while :; do sleep 0.1; done`;
    const process = { ...shell(script), terminal: true, consoleSize: { height: 20, width: 60 } };
    await client.exec({ id: 'four', exec: 'tty', process, streams: streams.ports });
    await streams.saw('ready');
    await client.resize('four', 33, 99, { exec: 'tty' });
    await client.kill('four', 2, { exec: 'tty' });
    await guest.told('execExit four tty 6');
    t.equal(await streams.output, '20 60\r\nready\r\ninterrupted\r\n33 99\r\n');
    await t.rejects(client.kill('four', 2, { exec: 'tty' }), { message: 'container four has no exec tty' });
  });

  await t.test('the end of the process ends its execs before it is told', async (t) => {
    await client.exec({ id: 'four', exec: 'last', process: shell('sleep 1000'), streams: {} });
    await client.kill('four', 9);
    await guest.told('exit four 137');
    t.same(guest.events.slice(-2), ['execExit four last 137', 'exit four 137']);
  });

  await t.test('processes, statistics, pause, limits, and want of memory', async (t) => {
    const own = guest.streams();
    // Without a PID namespace of its own.
    const script = `echo begin; i=0; while :; do i=$((i + 1)); done`;
    await client.create(
      guest.container('five', script, own.ports, ({ linux }) => {
        if (linux?.namespaces) linux.namespaces = linux.namespaces.filter(({ type }) => type !== 'pid');
        if (linux) linux.resources = { memory: { limit: 64 << 20, swap: 64 << 20 }, pids: { limit: 50 } };
      }),
    );
    await client.start('five');
    await own.saw('begin');
    const processes = await client.processes('five');
    t.match(processes, [
      {
        nsPid: processes[0]?.pid,
        ppid: 1,
        uid: 0,
        tty: '?',
        state: /^[RS]$/,
        threads: 1,
        command: ['/bin/sh', '-c', script],
      },
    ]);

    const before = await client.stats('five');
    t.match(before, {
      memory: { limit: 64 << 20, swapLimit: 0, oomKills: 0 },
      pids: { current: 1, limit: 50 },
    });
    t.ok(before.memory.usage > 0 && before.cpu.usageNs > 0 && Number(before.memory.stat.anon) >= 0);
    await client.update('five', { memory: { limit: 32 << 20, swap: 32 << 20 }, pids: { limit: 40 } });
    t.match(await client.stats('five'), { memory: { limit: 32 << 20 }, pids: { limit: 40 } });
    await t.rejects(client.update('five', { memory: { swappiness: 5 } }), {
      message: 'cannot set memory swappiness with cgroupv2',
    });

    await client.pause('five');
    const first = await client.stats('five');
    await t.rejects(client.pause('five'), { message: 'the container is paused already' });
    const refused = client.exec({ id: 'five', exec: 'a', process: shell('true'), streams: {} });
    await t.rejects(refused, { message: 'container five is paused' });
    t.equal((await client.stats('five')).cpu.usageNs, first.cpu.usageNs, 'nothing runs');
    await client.resume('five');
    await t.rejects(client.resume('five'), { message: 'the container is not paused' });

    const hog = shell('exec head -c 100m /dev/zero | tail');
    await client.exec({ id: 'five', exec: 'hog', process: hog, streams: {} });
    await guest.told('oom five');
    await guest.told('execExit five hog 137');
    t.ok((await client.stats('five')).memory.oomKills > 0);
    await client.kill('five', 15, { all: true });
    await guest.told('exit five 143 oom');
  });

  await t.test('nothing is left of what has been', async (t) => {
    // It sees the whole guest.
    await client.create(
      guest.container('watch', 'while :; do sleep 1000; done', {}, ({ process, linux }) => {
        for (const set of Object.values(process.capabilities ?? {})) set?.push('CAP_SYS_PTRACE');
        if (linux?.namespaces) linux.namespaces = linux.namespaces.filter(({ type }) => type !== 'pid');
      }),
    );
    await client.start('watch');
    let count = 0;
    const exec = async (script: string): Promise<string> => {
      const streams = guest.streams();
      const name = `e${++count}`;
      await client.exec({ id: 'watch', exec: name, process: shell(script), streams: streams.ports });
      await guest.told(`execExit watch ${name} 0`);
      return streams.output;
    };
    const look = (): Promise<string> =>
      exec(`
        echo fds: $(ls /proc/1/fd | wc -l)
        echo zombies: $(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)
        cd /proc/1/root/run; ls . crun tsvmm tsvmm/watch tsvmm/watch/exec
        grep -c . /proc/1/mounts; ls -d /proc/1/root/sys/fs/cgroup/*/
      `);
    const before = await look();
    for (let i = 0; i < 5; i++) {
      // With orphans that the guest's first process gets, and a container that is made and ends meanwhile.
      const script = '(sh -c "exit 9" & sh -c "exit 8" &) ; (sleep 0.01 &)';
      const made = client.create(guest.container('short', 'true', guest.streams().ports));
      await Promise.all([exec(script), exec('true'), made]);
      guest.events.splice(0);
      await client.start('short');
      await guest.told('exit short 0');
    }
    const bare = (text: string): string => text.replaceAll(/e\d+/g, 'e');
    t.equal(bare(await look()), bare(before));
    t.match(before, /^fds: \d+\nzombies: 0\n/);
    await client.kill('watch', 9);
    await guest.told('exit watch 137');
  });
});

async function text(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString('latin1');
}
