import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName } from '../options.js';
import { ConsolePort, checkSize } from './port.js';

export { ConsolePort } from './port.js';

/** A console (virtio 1.2, 5.3): one terminal, or several ports with names. */
export interface ConsoleOptions {
  /** For messages and metrics. */
  readonly name: string;
  /**
   * The terminal hvc0, alone if there are no `ports`; without it there are only the ports. Without `input` there is no input,
   * without `output` what the guest writes is thrown away.
   */
  readonly terminal?: PortStreams | undefined;
  /** Further ports, at most 30. One without `input` and `output` is a stream: {@link ConsolePort.stream}. */
  readonly ports?: readonly PortOptions[] | undefined;
}

/** What a port is connected to. */
export interface PortStreams {
  /** Descriptor of the guest's input: never made non-blocking, it stays the caller's. It is read only as the guest takes it. */
  readonly input?: number | undefined;
  /** Descriptor of the guest's output. A reader that is slow slows the guest down; nothing is lost. */
  readonly output?: number | undefined;
  /** Of a terminal: its first size in characters, 0 to 65535; 0: unknown. */
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

export interface PortOptions extends PortStreams {
  /** What the guest knows it by (`/dev/virtio-ports/NAME`): 1 to 32 of the characters A-Z a-z 0-9 . _ - */
  readonly name: string;
  /** A terminal (hvcN) rather than a plain port. False by default. */
  readonly console?: boolean | undefined;
}

const DEVICE_ID = 3;
const F_SIZE = 1n << 0n;
const F_MULTIPORT = 1n << 1n;
const QUEUE_SIZE = 64;
// Linux fills each receiving queue with pages: 128 KiB of the guest's memory a port.
const PORT_QUEUE_SIZE = 32;
const MAX_PORTS = 30;
const NAME = /^[A-Za-z0-9._-]{1,32}$/;

/** @throws TypeError or RangeError for a bad option; Error for a descriptor that is not open, or not in that direction */
export function describeConsole(options: ConsoleOptions): {
  readonly description: VirtioDescription;
  /** By name; the terminal's is that of the device. */
  readonly ports: ReadonlyMap<string, ConsolePort>;
} {
  const { name, terminal, ports: further = [] } = options;
  checkName('console', name);
  const where = `console ${name}`;
  if (further.length > MAX_PORTS) {
    throw new RangeError(`${where}: ports: expected at most ${MAX_PORTS}, got ${further.length}`);
  }
  const ports = new Map<string, ConsolePort>();
  const natives = [];
  const list = terminal === undefined ? further : [{ ...terminal, name, console: true }, ...further];
  for (const port of list) {
    const which = port.name === name ? where : `${where}: port ${port.name}`;
    if (typeof port.name !== 'string' || !NAME.test(port.name)) {
      throw new RangeError(
        `${where}: ports: name: expected 1 to 32 of the characters A-Z a-z 0-9 . _ -, got ${JSON.stringify(port.name)}`,
      );
    }
    if (ports.has(port.name)) throw new RangeError(`${where}: ports: the name '${port.name}' is used twice`);
    const { input, output, columns = 0, rows = 0, console: isConsole = false } = port;
    if (input !== undefined) checkInteger(`${which}: input`, input, 0, 0x7fffffff);
    if (output !== undefined) checkInteger(`${which}: output`, output, 0, 0x7fffffff);
    checkSize(which, columns, rows);
    const streams = input === undefined && output === undefined && further.includes(port);
    const made = new ConsolePort(port.name, isConsole, streams ? 'stream' : { input, output });
    ports.set(port.name, made);
    natives.push({ name: isConsole ? '' : port.name, console: isConsole, columns, rows, ...made.ends });
  }

  const [first] = natives;
  if (first === undefined) throw new TypeError(`${where}: expected a terminal or ports, got neither`);
  const native = addon().createVirtioConsole({
    ports: natives,
    onChange: () => {
      for (const port of ports.values()) port.update();
    },
  });
  for (const [index, port] of [...ports.values()].entries()) port.attach(native, index);

  // Virtio 1.2, 5.3.4: cols, rows, max_nr_ports (with F_MULTIPORT), emerg_wr (with F_EMERG_WRITE).
  const config = new Uint8Array(12);
  const view = new DataView(config.buffer);
  view.setUint16(0, first.columns, true);
  view.setUint16(2, first.rows, true);
  view.setUint32(4, natives.length, true);

  const multiport = further.length > 0;
  return {
    description: {
      name,
      deviceId: DEVICE_ID,
      features: multiport ? F_SIZE | F_MULTIPORT : F_SIZE,
      // Two for each port, and two for the control messages.
      queueSizes: multiport
        ? Array.from({ length: 2 * natives.length + 2 }, () => PORT_QUEUE_SIZE)
        : [QUEUE_SIZE, QUEUE_SIZE],
      config,
      backend: native,
    },
    ports,
  };
}
