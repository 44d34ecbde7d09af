import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { NativeVsock, NativeVsockOptions } from '../../addon/index.js';
import { checkInteger } from '../options.js';
import { StreamQueue } from './stream-queue.js';

/** A connection that could not be made, or an operation on what has been closed. */
export class VsockError extends Error {
  override readonly name = 'VsockError';
  constructor(
    message: string,
    /** What happened to a connection: `ECONNREFUSED` when nobody in the guest listens to the port, `ECONNRESET`, ... */
    readonly code?: string,
  ) {
    super(message);
  }
}

/** How a connection ended. */
export interface VsockEnd {
  /** Bytes from the guest that could not be delivered: a closed pipe, a full disk, a machine that ended. */
  readonly lostBytes: number;
  /** Cut off by the guest or by its end, rather than closed. */
  readonly reset: boolean;
}

export interface Closable {
  /** Takes it back; connections that have been made stay. Idempotent. */
  close(): void;
}

export interface BindOptions {
  /** A descriptor that the guest's connection reads from; -1 or absent: none. */
  readonly read?: number | undefined;
  /** A descriptor that gets what the guest sends; -1 or absent: none, and the guest is told so when it sends. */
  readonly write?: number | undefined;
  /** Hand the descriptors over: they are closed when the connection no longer needs them. False by default: they stay open. */
  readonly closeFds?: boolean | undefined;
  /** The connection has ended, and every byte that could be delivered has been. */
  readonly onClosed?: ((end: VsockEnd) => void) | undefined;
}

export interface ChannelOptions {
  /** The longest line from the guest, in bytes, 1 to 16777216; a longer one ends the connection. 4194304 by default. */
  readonly maxLine?: number | undefined;
  readonly onLine: (line: string) => void;
  readonly onOpen?: (() => void) | undefined;
  /** The connection has ended; `reason` where it was not simply closed. Nothing comes after it. */
  readonly onEnd?: ((reason: string | undefined) => void) | undefined;
}

export interface Channel extends Closable {
  /** Sends a line; its newline is added. Before the guest has connected it waits. After the end it goes nowhere. */
  send(line: string): void;
}

/** Connections from the guest, as a callback or an asynchronous iterator. */
export interface VsockListener extends Closable, AsyncIterable<Duplex> {}

type Handler = (kind: string, value: number, text: string, connection: number) => void;

const ECONNRESET = 104;
const MAX_PORT = 0xffff_fffe;
const MAX_PATH = 107;
/** `_` and the longest port number. */
const MAX_SUFFIX = 11;
const DEFAULT_LINE = 4 << 20;
const MAX_LINE = 16 << 20;

/** What can become of a connect(), by errno. */
const REFUSALS: Readonly<Record<number, readonly [code: string, reason: string]>> = {
  104: ['ECONNRESET', 'the guest was reset, or has ended'],
  105: ['ENOBUFS', 'too many connections'],
  110: ['ETIMEDOUT', 'the guest does not answer'],
  111: ['ECONNREFUSED', 'nobody listens there'],
};

/**
 * The host's side of a machine's socket device. Everything can be asked for before the guest is up, and holds until it is taken
 * back, whatever the guest does; data never passes through JavaScript unless a stream or a channel is asked for.
 *
 * Which of several takes a guest's connection to a port: what bindPort() or channel() waits for, then listen(), then
 * listenUnix(), then listenAll().
 */
export class Vsock {
  /** For the machine's bus. */
  readonly native: NativeVsock;
  readonly #handlers = new Map<number, Handler>();
  readonly #listening = new Set<number>();
  readonly #connecting = new Set<number>();
  readonly #queues = new Set<StreamQueue>();
  readonly #sockets = new Set<() => void>();
  #nextId = 1;
  #closed = false;

  constructor(create: (onEvent: NativeVsockOptions['onEvent']) => NativeVsock) {
    this.native = create((kind, id, value, text, connection) => {
      const handler = this.#handlers.get(id);
      if (handler !== undefined) handler(kind, value, text, connection);
      else if (kind === 'accepted') closeSync(value);
    });
  }

  /** How many connections there are. */
  get connections(): number {
    return this.native.connections();
  }

  /**
   * Bridges the guest's next connection to host port `port` (one) to descriptors, such as this process's standard streams: pipes,
   * terminals, sockets or files. They are never made non-blocking. The end of the input half-closes the connection, and the guest's
   * half-close ends the output.
   *
   * @throws Error for a descriptor that is not open for its direction
   */
  bindPort(port: number, options: BindOptions): Closable {
    checkPort(port);
    const { read = -1, write = -1, closeFds = false, onClosed } = options;
    checkInteger('vsock: read: a descriptor', read, -1, 0x7fff_ffff);
    checkInteger('vsock: write: a descriptor', write, -1, 0x7fff_ffff);
    if (read < 0 && write < 0)
      throw new TypeError('vsock: bindPort needs a descriptor to read, to write, or both');
    const id = this.#take((kind, value, text) => {
      if (kind !== 'ended') return;
      this.#handlers.delete(id);
      onClosed?.({ lostBytes: value, reset: text !== '' });
    });
    try {
      this.native.bind(id, port, read, write, closeFds);
    } catch (error) {
      this.#handlers.delete(id);
      throw error;
    }
    return { close: () => this.native.unbind(id) };
  }

  /** Frames the guest's next connection to host port `port` (one) into lines, each ended by a newline. */
  channel(port: number, options: ChannelOptions): Channel {
    checkPort(port);
    const { maxLine = DEFAULT_LINE, onLine, onOpen, onEnd } = options;
    checkInteger('vsock: maxLine', maxLine, 1, MAX_LINE);
    const id = this.#take((kind, _value, text) => {
      if (kind === 'line') {
        onLine(text);
      } else if (kind === 'open') {
        onOpen?.();
      } else if (kind === 'ended') {
        this.#handlers.delete(id);
        onEnd?.(text === '' ? undefined : text);
      }
    });
    this.native.channel(id, port, maxLine);
    return { send: (line) => this.native.send(id, line), close: () => this.native.finish(id) };
  }

  /**
   * Connects to a port of the guest; before the guest's driver is there it waits for it. (A guest's driver comes before its
   * programs: until one of them listens, the answer is ECONNREFUSED.) Back-pressure and half-close are the stream's: end()
   * half-closes, and reading goes on. destroy() before both sides have ended resets the connection. A connection that the guest
   * resets, or that ends with the guest, fails the stream with a VsockError of `code` ECONNRESET; writing what the guest will not
   * read, with EPIPE.
   *
   * @throws VsockError (rejects) with `code` ECONNREFUSED, ETIMEDOUT, ECONNRESET or ENOBUFS
   */
  async connect(port: number): Promise<Duplex> {
    checkPort(port);
    const { Socket } = await import('node:net');
    return await new Promise<Duplex>((resolve, reject) => {
      let fd = -1;
      const id = this.#take((kind, error) => {
        if (kind !== 'connected') return;
        this.#handlers.delete(id);
        this.#connecting.delete(id);
        if (error === 0) {
          resolve(this.#stream(Socket, fd, id, port));
          return;
        }
        closeSync(fd);
        const [code, reason] = REFUSALS[error] ?? ['EIO', `errno ${error}`];
        reject(new VsockError(`vsock: port ${port} of the guest: ${reason}`, code));
      });
      this.#connecting.add(id);
      try {
        fd = this.native.connect(id, port);
      } catch (error) {
        this.#handlers.delete(id);
        this.#connecting.delete(id);
        reject(error);
      }
    });
  }

  /**
   * Serves the guest's connections to host port `port`: each goes to `onConnection`, or without one to `for await`. The streams
   * are as those of connect().
   *
   * @throws VsockError if something listens to the port already
   */
  listen(port: number, onConnection?: (stream: Duplex, guestPort: number) => void): VsockListener {
    this.#listenTo(port);
    const queue = new StreamQueue();
    const net = import('node:net');
    const id = this.#take((kind, fd, guestPort, connection) => {
      if (kind !== 'accepted') return;
      let reset = false;
      this.#handlers.set(connection, () => {
        reset = true;
      });
      // The order of arrival stays.
      void net.then(({ Socket }) => {
        if (reset) {
          // Over before anybody had it.
          this.#handlers.delete(connection);
          closeSync(fd);
          return;
        }
        const stream = this.#stream(Socket, fd, connection, Number(guestPort));
        if (onConnection === undefined) queue.push(stream);
        else onConnection(stream, Number(guestPort));
      });
    });
    this.native.listen(id, port);
    this.#queues.add(queue);
    const closable = this.#listener(port, () => {
      this.#handlers.delete(id);
      this.#queues.delete(queue);
      queue.close();
    });
    return { ...closable, [Symbol.asyncIterator]: () => queue };
  }

  /** Connects the guest's connections to host port `port` to the Unix socket at `path`, as they come. */
  listenUnix(port: number, path: string): Closable {
    checkPath(path, MAX_PATH);
    this.#listenTo(port);
    this.native.listenUnix(port, path);
    return this.#listener(port);
  }

  /** Connects the guest's connections to any other port to the Unix socket `${prefix}_${port}`. Replaces an earlier prefix. */
  listenAll(prefix: string): Closable {
    checkPath(prefix, MAX_PATH - MAX_SUFFIX);
    this.native.listenAll(prefix);
    return { close: () => this.native.listenAll(undefined) };
  }

  /**
   * Makes a Unix socket by which programs of the host reach the guest: a client sends `CONNECT PORT` and a newline, gets `OK` and
   * the host's port number, and is then connected to that port of the guest. Who is refused is hung up on. The file is
   * removed on close().
   *
   * @throws Error, naming the path, if something is there that is not an abandoned socket
   */
  hostSocket(path: string): Closable {
    checkPath(path, MAX_PATH);
    const id = this.#take(() => {});
    try {
      this.native.hostSocket(id, path);
    } finally {
      this.#handlers.delete(id);
    }
    const close = (): void => {
      if (this.#sockets.delete(close)) this.native.closeHostSocket(id);
    };
    this.#sockets.add(close);
    return { close };
  }

  /** Opens the device to other programs of the host: listenAll() and hostSocket() with one path. */
  open(path: string): Closable {
    const listener = this.listenAll(path);
    try {
      const socket = this.hostSocket(path);
      return {
        close: () => {
          socket.close();
          listener.close();
        },
      };
    } catch (error) {
      listener.close();
      throw error;
    }
  }

  /** Ends every connection and tells the guest that all are gone (virtio 1.2, 5.10.6.7): for a machine that was restored. */
  resetTransport(): void {
    this.native.resetTransport();
  }

  /**
   * The machine has ended: socket files are removed and what waits for a connection fails. What has ended with the machine is
   * still told. Idempotent.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const close of [...this.#sockets]) close();
    // The machine's last events are in the event loop's hands: they come before the second turn.
    setImmediate(() => setImmediate(() => this.#finish()));
  }

  #finish(): void {
    for (const id of [...this.#connecting]) this.#handlers.get(id)?.('connected', ECONNRESET, '', 0);
    for (const queue of this.#queues) queue.close();
    this.#handlers.clear();
    this.native.close();
  }

  /** The stream over our end of a connection; events under `id` are about it from now on. */
  #stream(Stream: typeof Socket, fd: number, id: number, guestPort: number): Socket {
    const stream = new Stream({ fd, allowHalfOpen: true, readable: true, writable: true });
    this.#handlers.set(id, (kind) => {
      if (kind === 'reset') stream.destroy(connectionReset(guestPort));
    });
    stream.once('close', () => this.#handlers.delete(id));
    return stream;
  }

  #take(handler: Handler): number {
    if (this.#closed) throw new VsockError('vsock: the machine has ended');
    const id = this.#nextId++;
    this.#handlers.set(id, handler);
    return id;
  }

  #listenTo(port: number): void {
    checkPort(port);
    if (this.#closed) throw new VsockError('vsock: the machine has ended');
    if (this.#listening.has(port)) throw new VsockError(`vsock: something listens to port ${port} already`);
    this.#listening.add(port);
  }

  #listener(port: number, closed: () => void = () => {}): Closable {
    let open = true;
    return {
      close: () => {
        if (!open) return;
        open = false;
        this.#listening.delete(port);
        this.native.unlisten(port);
        closed();
      },
    };
  }
}

function connectionReset(guestPort: number): VsockError {
  return new VsockError(
    `vsock: port ${guestPort} of the guest: the connection was reset, or the guest has ended`,
    'ECONNRESET',
  );
}

/** 4294967295 means any port (VMADDR_PORT_ANY). */
function checkPort(port: number): void {
  checkInteger('vsock: port', port, 0, MAX_PORT);
}

function checkPath(path: string, max: number): void {
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw new TypeError(`vsock: path: expected the path of a Unix socket, got ${JSON.stringify(path)}`);
  }
  if (Buffer.byteLength(path) > max) {
    throw new RangeError(
      `vsock: path: expected at most ${max} bytes, got ${Buffer.byteLength(path)}: ${path}`,
    );
  }
}
