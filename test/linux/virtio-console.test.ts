import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import t from 'tap';
import { Machine } from '../../src/machine/machine.js';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';

// Boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const MIB = 1 << 20;
const { kernel } = guestFiles({});
const md5 = (bytes: Buffer | string): string => createHash('md5').update(bytes).digest('hex');

/** Lines of a stream, one at a time, until the machine ends. */
function reader(stream: Duplex, machine: Machine): () => Promise<string> {
  let seen = '';
  let ended: string | undefined;
  void machine.wait().then((exit) => {
    ended = JSON.stringify(exit);
    stream.emit('more');
  });
  stream.on('data', (chunk: Buffer) => {
    seen += chunk.toString('latin1');
    stream.emit('more');
  });
  return async () => {
    while (!seen.includes('\n')) {
      if (ended !== undefined) throw new Error(`the machine has ended: ${ended}`);
      await new Promise((resolve) => stream.once('more', resolve));
    }
    const line = seen.slice(0, seen.indexOf('\n'));
    seen = seen.slice(line.length + 1);
    return line.trim();
  };
}

t.test('terminals and ports, on descriptors and as streams', async (t) => {
  const folder = temporaryFolder(t);
  const path = (name: string) => join(folder, name);
  const typed = Array.from({ length: 80 }, (_, n) => `line ${n} of what was typed ahead\n`).join('');
  writeFileSync(path('typed'), typed);
  writeFileSync(path('in'), 'a word\n');
  const fds = {
    serialIn: openSync(path('typed'), 'r'),
    serialOut: openSync(path('serial'), 'w'),
    input: openSync(path('in'), 'r'),
    output: openSync(path('out'), 'w'),
    log: openSync(path('log'), 'w'),
  };
  t.teardown(() => {
    for (const fd of Object.values(fds)) closeSync(fd);
  });
  const initrd = makeInitramfs(
    t,
    `
    # A port's device by its name.
    port() { echo /dev/$(basename $(dirname $(grep -lx "$1" /sys/class/virtio-ports/*/name))); }
    agent=$(port agent)
    exec 4<>$agent
    echo "serial $(stty raw -echo < /dev/ttyS0; head -n 80 /dev/ttyS0 | md5sum)" >&4
    exec 3<>/dev/hvc0
    stty raw -echo <&3
    read line <&3
    echo "heard $line" >&3
    head -c 20000 /dev/zero | tr '\\0' '#' >&3
    exec 5<>/dev/hvc1
    until [ "$(stty size <&5)" = "37 101" ]; do sleep 0.1; done
    echo "first size" >&4
    read line <&4
    until [ "$(stty size <&5)" = "20 90" ]; do sleep 0.1; done
    echo "next size after $line" >&4
    head -c 300000 /dev/zero | tr '\\0' 'L' > $(port log)
    head -c 1000000 <&4 | md5sum >&4
    slow=$(port slow)
    # A port can be open once: nobody else may hold it.
    exec 4>&-
    # Nobody reads yet: the writer waits.
    (head -c 2000000 /dev/zero | tr '\\0' '+' > $slow) &
    exec 4<>$agent
    echo "again" >&4
    wait
    cat <&4 > /tmp-rest
    echo "rest $(cat /tmp-rest)" > /dev/ttyS0
    poweroff -f
    `,
  );
  const machine = await Machine.create({
    memory: 128 * MIB,
    cpus: 1,
    kernel: { path: kernel, initrd, commandLine: 'quiet' },
    serial: { input: fds.serialIn, output: fds.serialOut },
    console: { input: fds.input, output: fds.output },
    ports: [
      { name: 'agent' },
      { name: 'second', console: true, output: fds.log, columns: 101, rows: 37 },
      { name: 'log', output: fds.log },
      { name: 'slow' },
    ],
  });
  t.teardown(() => machine.close());
  const port = (name: string) => {
    const found = machine.ports.get(name);
    if (found === undefined) throw new Error(`no port ${name}`);
    return found;
  };
  const events: string[] = [];
  port('agent')
    .on('open', () => events.push('open'))
    .on('close', () => events.push('close'));
  const agent = await port('agent').stream();
  const line = reader(agent, machine);
  machine.start();

  t.equal(await line(), `serial ${md5(typed)}  -`, 'nothing typed ahead at the serial port is lost');
  t.equal(await line(), 'first size');
  t.equal(port('second').isOpen, true);
  t.equal(port('agent').isOpen, true);
  t.equal(port('slow').isOpen, false);
  port('second').resize(90, 20);
  agent.write('a resize\n');
  t.equal(await line(), 'next size after a resize');
  const much = Buffer.alloc(1_000_000, 'what the guest takes as it can\n');
  agent.write(much);
  t.equal(await line(), `${md5(much)}  -`);
  t.equal(await line(), 'again');
  await new Promise<void>((resolve) => {
    if (events.length >= 3) resolve();
    else port('agent').once('open', resolve);
  });
  t.same(events, ['open', 'close', 'open']);

  const slow = await port('slow').stream();
  let plus = 0;
  for await (const chunk of slow) {
    plus += (chunk as Buffer).length;
    if (plus === 2_000_000) break;
  }
  t.equal(plus, 2_000_000);
  agent.write('the end');
  agent.destroy();
  t.equal((await machine.wait()).reason, 'power-off');
  const seen = readFileSync(path('out'), 'latin1');
  t.match(seen, 'heard a word');
  t.equal(seen.split('#').length - 1, 20_000);
  t.equal(readFileSync(path('log'), 'latin1').split('L').length - 1, 300_000);
  t.match(readFileSync(path('serial'), 'latin1'), 'rest the end');
  t.ok(Number(machine.metrics().console?.bytesRead) >= 1_000_000);
});
