import { addon } from '../addon/index.js';

// asm-generic/ioctls.h. node:tty would do, but keeps output processing on in its raw mode, and has to be loaded.
const TCGETS = 0x5401;
const TCSETSW = 0x5403;
const TIOCGWINSZ = 0x5413;

/** struct termios of the kernel: four words of flags, the line discipline, then c_cc. */
const TERMIOS_SIZE = 36;
const CC = 17;
const VINTR = CC + 0;
const VQUIT = CC + 1;
const VTIME = CC + 5;
const VMIN = CC + 6;
const VSUSP = CC + 10;
const DISABLED = 0;

// asm-generic/termbits.h
const BRKINT = 0o2;
const PARMRK = 0o10;
const INPCK = 0o20;
const ISTRIP = 0o40;
const INLCR = 0o100;
const IGNCR = 0o200;
const ICRNL = 0o400;
const IXON = 0o2000;
const OPOST = 0o1;
const CSIZE = 0o60;
const CS8 = 0o60;
const PARENB = 0o400;
const ISIG = 0o1;
const ICANON = 0o2;
const ECHO = 0o10;
const ECHONL = 0o100;
const NOFLSH = 0o200;
const IEXTEN = 0o100000;

/** Control and `]`: the key that {@link Terminal.raw} can keep for the host. */
export const ESCAPE_KEY = 0x1d;

/** The terminal on standard input: its size, and raw mode with what it was before put back. */
export class Terminal {
  readonly #fd: number;
  #saved: DataView | undefined;

  constructor(fd = 0) {
    this.#fd = fd;
  }

  get isRaw(): boolean {
    return this.#saved !== undefined;
  }

  /** Undefined where the descriptor is no terminal. */
  size(): { readonly rows: number; readonly columns: number } | undefined {
    const size = new DataView(new ArrayBuffer(8));
    if (addon().ioctl(this.#fd, TIOCGWINSZ, size) < 0) return undefined;
    return { rows: size.getUint16(0, true), columns: size.getUint16(2, true) };
  }

  /**
   * Raw mode, as cfmakeraw(3): every key is a byte, nothing is echoed, output is left as it is. With `escapeKey` the
   * terminal keeps one key for us: it sends SIGQUIT, and no byte of it reaches the reader. Nothing happens where there
   * is no terminal.
   */
  raw(escapeKey?: number): void {
    const termios = new DataView(new ArrayBuffer(TERMIOS_SIZE));
    if (addon().ioctl(this.#fd, TCGETS, termios) < 0) return;
    this.#saved ??= new DataView(termios.buffer.slice(0));
    const clear = (at: number, bits: number): void =>
      termios.setUint32(at, termios.getUint32(at, true) & ~bits, true);
    const set = (at: number, bits: number): void =>
      termios.setUint32(at, termios.getUint32(at, true) | bits, true);
    clear(0, BRKINT | PARMRK | INPCK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    clear(4, OPOST);
    clear(8, CSIZE | PARENB);
    set(8, CS8);
    clear(12, ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    termios.setUint8(VMIN, 1);
    termios.setUint8(VTIME, 0);
    if (escapeKey !== undefined) {
      set(12, ISIG | NOFLSH);
      for (const key of [VINTR, VSUSP]) termios.setUint8(key, DISABLED);
      termios.setUint8(VQUIT, escapeKey);
    }
    addon().ioctl(this.#fd, TCSETSW, termios);
  }

  /** Puts back what raw() found. Idempotent. */
  restore(): void {
    if (this.#saved === undefined) return;
    addon().ioctl(this.#fd, TCSETSW, this.#saved);
    this.#saved = undefined;
  }

  /** Calls `listener` whenever the window's size has changed. */
  onResize(listener: () => void): void {
    process.on('SIGWINCH', listener);
  }
}
