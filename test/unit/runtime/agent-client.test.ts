import t from 'tap';
import {
  AgentClient,
  type ContainerExit,
  type ExecExit,
  type Ready,
} from '../../../src/runtime/agent-client.js';

/** A client with an agent that is played by the test. */
function connect() {
  const sent: unknown[] = [];
  const seen: {
    ready: Ready[];
    exits: ContainerExit[];
    execExits: ExecExit[];
    ooms: string[];
    logs: string[];
    ends: string[];
  } = {
    ready: [],
    exits: [],
    execExits: [],
    ooms: [],
    logs: [],
    ends: [],
  };
  let closed = 0;
  const client = new AgentClient(
    {
      send: (line) => {
        sent.push(JSON.parse(line));
      },
      close: () => {
        closed++;
      },
    },
    {
      onReady: (ready) => seen.ready.push(ready),
      onContainerExit: (exit) => seen.exits.push(exit),
      onExecExit: (exit) => seen.execExits.push(exit),
      onOom: (id) => seen.ooms.push(id),
      onLog: (level, message) => seen.logs.push(`${level} ${message}`),
      onEnd: (reason) => seen.ends.push(reason),
    },
  );
  const tell = (message: unknown): void => client.onLine(JSON.stringify(message));
  const ready = (): void =>
    tell({
      jsonrpc: '2.0',
      method: 'ready',
      params: { protocol: 2, agent: '0.1.0', kernel: '6.1.0', bootNs: 5e7 },
    });
  return { client, sent, seen, tell, ready, closed: () => closed };
}

const RUN = {
  id: 'x',
  config: { a: 1 },
  rootfs: { type: 'virtiofs', tag: 'rootfs' },
  streams: { stdout: 1026 },
} as const;

t.test('a container is run, signalled, resized, and ends', async (t) => {
  const { client, sent, seen, tell, ready } = connect();
  ready();
  t.same(seen.ready, [{ agent: '0.1.0', kernel: '6.1.0', bootNs: 5e7 }]);
  const run = client.run(RUN);
  t.same(sent[0], { jsonrpc: '2.0', id: 1, method: 'container.run', params: RUN });
  tell({ jsonrpc: '2.0', id: 1, result: { pid: 17 } });
  t.same(await run, { pid: 17 });
  const kill = client.kill('x', 15);
  const resize = client.resize('x', 25, 80);
  const time = client.setTime(1_700_000_000_123_456_789n);
  t.same(sent.slice(1), [
    { jsonrpc: '2.0', id: 2, method: 'container.kill', params: { id: 'x', signal: 15 } },
    { jsonrpc: '2.0', id: 3, method: 'container.resize', params: { id: 'x', rows: 25, columns: 80 } },
    { jsonrpc: '2.0', id: 4, method: 'machine.time', params: { realtimeNs: '1700000000123456789' } },
  ]);
  for (const id of [4, 3, 2]) tell({ jsonrpc: '2.0', id, result: {} });
  await Promise.all([kill, resize, time]);
  tell({ jsonrpc: '2.0', method: 'log', params: { level: 'warn', message: 'a\u001b[2Jb\nc' } });
  tell({ jsonrpc: '2.0', method: 'container.exit', params: { id: 'x', status: 143, oomKilled: true } });
  tell({ jsonrpc: '2.0', method: 'of.the.future', params: [] });
  t.same(seen.logs, ['warn a[2Jb\nc'], 'control characters are taken out');
  t.same(seen.exits, [{ id: 'x', status: 143, oomKilled: true }]);
  t.same(seen.ends, []);
});

t.test('a container is created, started, and processes are started in it', async (t) => {
  const { client, sent, seen, tell, ready } = connect();
  ready();
  const exec = {
    id: 'x',
    exec: 'e1',
    process: { args: ['ls'] },
    streams: { terminal: 1030 },
    preserved: [{ port: 1031, access: 'read' as const }],
  };
  const calls: [Promise<unknown>, string, object, unknown?, unknown?][] = [
    [
      client.create({ ...RUN, preserved: [{ port: 1029, access: 'write' }] }),
      'container.create',
      { ...RUN, preserved: [{ port: 1029, access: 'write' }] },
      { pid: 5 },
      { pid: 5 },
    ],
    [client.start('x'), 'container.start', { id: 'x' }],
    [client.exec(exec), 'container.exec', exec, { pid: 9 }, { pid: 9 }],
    [client.kill('x', 2, { exec: 'e1' }), 'container.kill', { id: 'x', signal: 2, exec: 'e1' }],
    [client.kill('x', 9, { all: true }), 'container.kill', { id: 'x', signal: 9, all: true }],
    [
      client.resize('x', 1, 2, { exec: 'e1' }),
      'container.resize',
      { id: 'x', rows: 1, columns: 2, exec: 'e1' },
    ],
    [
      client.update('x', { pids: { limit: 5 } }),
      'container.update',
      { id: 'x', resources: { pids: { limit: 5 } } },
    ],
    [client.pause('x'), 'container.pause', { id: 'x' }],
    [client.resume('x'), 'container.resume', { id: 'x' }],
    [client.networkSet({ interfaces: [] }), 'network.set', { interfaces: [] }],
  ];
  for (const [index, [promise, method, params, result = {}, value]] of calls.entries()) {
    t.same(sent[index], { jsonrpc: '2.0', id: index + 1, method, params });
    tell({ jsonrpc: '2.0', id: index + 1, result });
    t.same(await promise, value);
  }
  tell({ jsonrpc: '2.0', method: 'container.execExit', params: { id: 'x', exec: 'e1', status: 255 } });
  tell({ jsonrpc: '2.0', method: 'container.oom', params: { id: 'x' } });
  t.same(seen.execExits, [{ id: 'x', exec: 'e1', status: 255 }]);
  t.same(seen.ooms, ['x']);
  t.same(seen.ends, []);
});

t.test("a refusal is an error with the agent's words", async (t) => {
  const { client, tell, ready } = connect();
  ready();
  const run = client.run(RUN);
  tell({ jsonrpc: '2.0', id: 1, error: { code: 1, message: 'exec: no such file', data: { errno: 2 } } });
  await t.rejects(run, { name: 'RefusedError', message: 'exec: no such file' });
  const kill = client.kill('x', 9);
  tell({ jsonrpc: '2.0', id: 2, error: 5 });
  await t.rejects(kill, { message: 'container.kill failed' });
});

t.test('a request without an answer ends by its time-out', async (t) => {
  const { client } = connect();
  await t.rejects(client.shutdown(1), { message: 'machine.shutdown: no answer within 0.001 seconds' });
});

t.test('the end of the connection rejects what waits', async (t) => {
  const { client, seen, ready, closed } = connect();
  ready();
  const run = client.run(RUN);
  client.onEnd();
  await t.rejects(run, { message: 'container.run: the connection to the agent has ended' });
  await t.rejects(client.kill('x', 1), { message: /has ended/ });
  client.onEnd();
  client.onLine('{}');
  t.equal(seen.ends.length, 1);
  t.equal(closed(), 1);
});

t.test('a message that is too large, or nested too deeply, is not sent', async (t) => {
  const { client, sent } = connect();
  await t.rejects(client.run({ ...RUN, config: 'x'.repeat(4 << 20) }), {
    message: /larger than 4194304 bytes/,
  });
  let deep: unknown = 0;
  for (let i = 0; i < 200_000; i++) deep = [deep];
  await t.rejects(client.run({ ...RUN, config: deep }), { message: /nested too deeply/ });
  t.equal(sent.length, 0);
});

t.test('numbers beyond 2^53 are sent as they were read', async (t) => {
  const lines: string[] = [];
  const client = new AgentClient({ send: (line) => lines.push(line), close: () => {} }, { onEnd: () => {} });
  const run = client.run({ ...RUN, config: { hard: 2 ** 64 } }, new Map([[2 ** 64, '18446744073709551615']]));
  t.match(lines[0], '"config":{"hard":18446744073709551615}');
  client.close();
  await t.rejects(run);
});

t.test('whatever a hostile agent sends ends the connection with a reason', async (t) => {
  const exit = (params: unknown) => ({ jsonrpc: '2.0', method: 'container.exit', params });
  const ready = (change: object) => ({
    jsonrpc: '2.0',
    method: 'ready',
    params: { protocol: 2, agent: 'a', kernel: 'k', bootNs: 0, ...change },
  });
  const afterReady: [unknown, RegExp][] = [
    ['not json', /sent what is not JSON/],
    ['', /sent what is not JSON/],
    ['5', /sent the number 5 instead of a message/],
    ['null', /sent null instead/],
    ['[]', /sent an empty array instead/],
    [{}, /not JSON-RPC 2\.0/],
    [{ jsonrpc: '2.0', method: 5 }, /method: expected a string/],
    [{ jsonrpc: '2.0', id: 99, result: {} }, /was not made \(id the number 99\)/],
    [{ jsonrpc: '2.0', id: '1', result: {} }, /was not made/],
    [{ jsonrpc: '2.0', id: 1 }, /neither or both/],
    [{ jsonrpc: '2.0', id: 1, result: {}, error: {} }, /neither or both/],
    [exit({ id: 5, status: 0 }), /container\.exit: id: expected a string/],
    [exit({ id: 'x', status: 256 }), /status: expected a whole number from 0 to 255, got the number 256/],
    [exit({ id: 'x', status: -1 }), /status: expected/],
    [exit({ id: 'x', status: 0.5 }), /status: expected/],
    [exit({ id: 'x', status: '0' }), /status: expected/],
    [exit(null), /id: expected a string, got nothing/],
    [exit([]), /id: expected a string/],
    [
      { jsonrpc: '2.0', method: 'container.execExit', params: { id: 'x', status: 0 } },
      /container\.execExit: exec: expected a string, got nothing/,
    ],
    [
      { jsonrpc: '2.0', method: 'container.execExit', params: { id: 'x', exec: 'e', status: 300 } },
      /container\.execExit: status: expected a whole number/,
    ],
    [{ jsonrpc: '2.0', method: 'container.oom', params: {} }, /container\.oom: id: expected a string/],
    [{ jsonrpc: '2.0', method: 'log', params: { level: 'loud', message: '' } }, /log: level/],
    [{ jsonrpc: '2.0', method: 'log', params: { level: 'warn', message: {} } }, /log: message/],
    [ready({}), /said twice that it is ready/],
  ];
  for (const [message, reason] of afterReady) {
    const { client, seen, ready, closed } = connect();
    ready();
    const run = client.run(RUN);
    client.onLine(typeof message === 'string' ? message : JSON.stringify(message));
    await t.rejects(run, { message: reason }, reason.source);
    t.equal(seen.ends.length, 1);
    t.equal(closed(), 1);
  }
  const beforeReady: [unknown, RegExp][] = [
    [exit({ id: 'x', status: 0 }), /before it was ready/],
    [ready({ protocol: 1 }), /speaks protocol the number 1, not 2/],
    [ready({ agent: null }), /ready: agent/],
    [ready({ kernel: 1 }), /ready: kernel/],
    [ready({ bootNs: -1 }), /ready: bootNs/],
    [{ jsonrpc: '2.0', method: 'ready', params: { __proto__: { protocol: 2 } } }, /speaks protocol nothing/],
  ];
  for (const [message, reason] of beforeReady) {
    const { client, seen } = connect();
    client.onLine(JSON.stringify(message));
    t.match(seen.ends[0], reason);
    t.same(seen.ready, []);
  }
  const { client, seen, ready: begin } = connect();
  begin();
  client.onLine('x'.repeat(1 << 20));
  t.ok((seen.ends[0]?.length ?? 0) < 200, 'a long line makes no long message');
});

t.test('a process ID that is none', async (t) => {
  for (const result of [{}, { pid: 0 }, { pid: 1.5 }, { pid: '7' }, 5, null]) {
    const { client, tell, ready } = connect();
    ready();
    const run = client.run(RUN);
    tell({ jsonrpc: '2.0', id: 1, result });
    await t.rejects(run, { message: /pid: expected a process ID/ });
  }
});

t.test('requests of the agent are answered with an error', async (t) => {
  const { sent, tell, ready, seen } = connect();
  ready();
  tell({ jsonrpc: '2.0', id: 7, method: 'host.exec', params: {} });
  t.match(sent[0], { error: { code: -32601 } });
  t.same(seen.ends, []);
});

const PROCESS = {
  pid: 71,
  nsPid: 1,
  ppid: 1,
  uid: 0,
  tty: 'pts/0',
  state: 'S',
  startTime: 0.42,
  cpuTime: 0,
  threads: 1,
  command: ['sh'],
};
const STATS = {
  cpu: { usageNs: 6, userNs: 5, systemNs: 1, periods: 0, throttledPeriods: 0, throttledNs: 0 },
  memory: { usage: 9, limit: 10, failcnt: 0, stat: { anon: 3 }, oomKills: 0 },
  pids: { current: 1 },
  io: [{ major: 254, minor: 0, readBytes: 1, writeBytes: 2, readOps: 3, writeOps: 4 }],
};

t.test('processes and statistics are passed on, and nothing else', async (t) => {
  const { client, tell, ready, seen } = connect();
  ready();
  const processes = client.processes('x');
  tell({ jsonrpc: '2.0', id: 1, result: { processes: [{ ...PROCESS, command: ['a\u001b[2J'], more: 1 }] } });
  t.same(await processes, [{ ...PROCESS, command: ['a[2J'] }]);
  const stats = client.stats('x');
  tell({ jsonrpc: '2.0', id: 2, result: { ...STATS, more: 1 } });
  t.same(await stats, STATS);
  const hugetlb = [{ size: '2MB', usage: 1, failcnt: 0 }];
  const more = client.stats('x');
  tell({ jsonrpc: '2.0', id: 3, result: { ...STATS, hugetlb } });
  t.same(await more, { ...STATS, hugetlb });
  t.same(seen.ends, []);
});

t.test('statistics and processes that are not as they should be', async (t) => {
  const one = (change: object) => ({ processes: [{ ...PROCESS, ...change }] });
  const cases: ['processes' | 'stats', unknown, RegExp][] = [
    ['processes', {}, /processes: expected an array of at most 4096, got nothing/],
    ['processes', { processes: Array(4097).fill(PROCESS) }, /processes: expected an array/],
    ['processes', { processes: [null] }, /processes\[0\]\.pid: expected a number/],
    ['processes', one({ pid: 1.5 }), /processes\[0\]\.pid: expected a whole number/],
    ['processes', one({ uid: -1 }), /processes\[0\]\.uid/],
    ['processes', one({ tty: 5 }), /processes\[0\]\.tty: expected a string/],
    ['processes', one({ startTime: null }), /processes\[0\]\.startTime/],
    ['processes', one({ command: 'sh' }), /processes\[0\]\.command: expected an array/],
    ['processes', one({ command: [5] }), /processes\[0\]\.command: expected a string/],
    ['stats', null, /cpu\.usageNs: expected a number/],
    ['stats', { ...STATS, cpu: { ...STATS.cpu, userNs: '1' } }, /cpu\.userNs/],
    ['stats', { ...STATS, memory: { ...STATS.memory, limit: -1 } }, /memory\.limit/],
    ['stats', { ...STATS, memory: { ...STATS.memory, stat: [] } }, /memory\.stat: expected an object/],
    ['stats', { ...STATS, memory: { ...STATS.memory, stat: { 'a b': 1 } } }, /memory\.stat: expected names/],
    ['stats', { ...STATS, memory: { ...STATS.memory, stat: { anon: 'x' } } }, /memory\.stat\.anon/],
    ['stats', { ...STATS, pids: {} }, /pids\.current/],
    ['stats', { ...STATS, io: [{}] }, /io\[0\]\.major/],
    ['stats', { ...STATS, io: {} }, /io: expected an array/],
    ['stats', { ...STATS, hugetlb: [{ size: '../x' }] }, /hugetlb\[0\]\.size: expected a size/],
  ];
  for (const [method, result, message] of cases) {
    const { client, tell, ready, seen } = connect();
    ready();
    const answer: Promise<unknown> = client[method]('x');
    tell({ jsonrpc: '2.0', id: 1, result });
    await t.rejects(answer, { message });
    t.equal(seen.ends.length, 1, 'the connection has ended');
  }
});
