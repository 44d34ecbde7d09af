/**
 * System calls that Node lacks or makes dear (native/addon/system.cc, control.cc). A negative result is -errno. Every
 * descriptor that a call returns is closed on exec, and belongs to the caller.
 */
export interface SystemAddon {
  /** pipe2(2) with O_CLOEXEC: the end to read from, the end to write to. */
  pipe(): readonly [number, number] | number;
  /**
   * fcntl(2) F_OFD_SETLK: a write lock on a range of the file, held by the open file description until it is closed
   * or the process ends, however it does. Never waits: -EAGAIN (-11) where another holds it.
   */
  lockRange(fd: number, start: bigint, length: bigint): number;

  /**
   * Starts a program (no search in PATH). `argv` has argv[0], `env` lines NAME=value. Its signals are as a shell would leave
   * them. Returns its pid, or -errno, also where it could not be executed.
   */
  spawn(path: string, argv: readonly string[], env: readonly string[], options: NativeSpawnOptions): number;
  /**
   * Waits for a child that ended: its status 0 to 255, 128 + n after signal n. -EAGAIN (-11) while it runs and `noHang` is
   * set; -ECHILD (-10) where it is none, or somebody has waited for it.
   */
  waitPid(pid: number, noHang: boolean): number;
  /** Becomes the program, whose descriptors 0, 1, 2, ... are `fds` (-1: /dev/null) and no others. Returns only -errno. */
  execve(path: string, argv: readonly string[], env: readonly string[], fds: readonly number[]): number;
  /** Closes descriptors from `first` on when another program is executed: those that the process was given would stay open in it. */
  closeOnExec(first: number): number;
  /** How a descriptor was opened (fcntl(2), F_GETFL): 0 for reading, 1 for writing, 2 for both. */
  descriptorAccess(fd: number): number;
  /** kill(2). */
  kill(pid: number, signal: number): number;

  /** A new pseudo-terminal of that size; 0 and 0: of none. */
  openPty(rows: number, columns: number): { readonly master: number; readonly slave: number } | number;
  /** Connects to a Unix socket and sends a copy of `fd` there, with `name` as the message. Waits 10 s at most. */
  sendFd(socketPath: string, fd: number, name: string): number;
  /** ioctl(2) TIOCSCTTY: makes the terminal the session's; the process must be its leader. */
  controllingTerminal(fd: number): number;

  /** unshare(2), of the calling thread. */
  unshare(flags: number): number;
  /** setns(2), of the calling thread; `type` is a CLONE_NEW* flag. */
  setns(pathOrFd: string | number, type: number): number;
  /** Moves the calling thread (no other) into a copy of its mount namespace; what is mounted there is not seen outside. A descriptor of the one it has left, or -errno. */
  separateMounts(): number;
  /**
   * Moves the calling thread (no other) into a new mount namespace whose root is the container's view of the host's files; the old
   * root is detached, and the working directory is the state folder, which has no path any more: only relative paths lead there
   * (and process.cwd() throws). Threads that are started afterwards from this one are in the view too. Returns 1 where the view has
   * a /proc, 0 where its root has no folder of that name.
   */
  enterView(view: NativeView): 0 | 1 | NativeViewError;
  readonly OpenGate: NativeOpenGateConstructor;
  /**
   * One netlink request, in the network namespace of the calling thread. `request` is a whole message with its header;
   * its length, sequence number, port, NLM_F_REQUEST and NLM_F_ACK are filled in. Returns all messages of the answer with their headers (none
   * for what is only acknowledged), without the acknowledgement or NLMSG_DONE itself; or the kernel's -errno.
   */
  netlink(protocol: number, request: Uint8Array): Uint8Array[] | number;
  /** A sealed file in memory that holds `bytes`, to be read from its start. */
  memfd(name: string, bytes: Uint8Array | string): number;

  /**
   * Sends `line` to the Unix socket at `path` (of any length) and returns the first line of the answer. Synchronous.
   * `timeoutMs` (0: no limit) is for all of it: -ETIMEDOUT (-110) after it; -ECONNRESET (-104) where the other side
   * closes without an answer.
   */
  controlRequest(path: string, line: string, timeoutMs: number): string | number;
  /**
   * The same, but goes on delivering lines as they come, until the other side closes: then `onEnd`, once. Keeps the process alive
   * until then or until close().
   */
  controlStream(
    path: string,
    line: string,
    onLine: (line: string) => void,
    onEnd: () => void,
  ): NativeControlStream | number;
  readonly ControlServer: NativeControlServerConstructor;
}

export interface NativeSpawnOptions {
  /** The child's descriptors 0, 1, 2, ... (-1: /dev/null); it gets no others. */
  readonly fds: readonly number[];
  /** As the leader of a new session. */
  readonly setsid?: boolean;
  /** As the first process of a PID namespace of its own, which needs rights: with it end all that it starts. */
  readonly ownPids?: boolean;
  /** The child's working directory. */
  readonly cwd?: string;
}

export interface NativeControlStream {
  /** Idempotent; nothing is called afterwards. */
  close(): void;
}

/**
 * A Unix socket (mode 0600) whose clients send lines, on Node's loop; it never waits, and does not keep the process alive. The
 * file's mode says who may connect. Lines are at most 4 MiB, with 64 descriptors at most; a client that breaks a bound, or
 * leaves more than 8 MiB unread, is cut off.
 */
export interface NativeControlServer {
  /** Sends a line (without its newline). -ENOENT (-2): the client is gone; -ENOBUFS (-105): it has just been cut off. */
  send(id: number, line: string): number;
  /** Closes the connection as soon as the client has got what was sent; onEnd is not called. */
  close(id: number): void;
  /** Closes everything at once. The socket's file stays. Idempotent. */
  stop(): void;
}

export interface NativeControlServerConstructor {
  /**
   * Throws an Error with `errno` (negative) where the socket cannot be made.
   * `onLine`: `fds` came along with the line and belong to the callee. `onEnd`: the client has gone or was cut off.
   */
  new (
    path: string,
    onConnection: (id: number) => void,
    onLine: (id: number, line: string, fds: number[]) => void,
    onEnd: (id: number) => void,
  ): NativeControlServer;
}

export interface NativeView {
  /** null: a read-only root in memory, which has places for the mounts. */
  readonly rootfs: string | null;
  readonly readOnly?: boolean;
  /**
   * Bind mounts, in their order, of folders or files with all that is mounted there. Destinations are resolved inside of the root
   * only; a mount whose destination is missing there, or is not of the source's type, is left out.
   */
  readonly mounts: readonly {
    readonly source: string;
    readonly destination: string;
    readonly readOnly?: boolean;
  }[];
  /** An empty file system in memory on /proc, instead of the host's. */
  readonly emptyProc?: boolean;
  readonly stateDirectory: string;
}

/**
 * Holds other processes that open a folder until letIn() (fanotify(7)). Does not keep the process alive; with the process it ends, and
 * nobody is held any more.
 */
export interface NativeOpenGate {
  letIn(): void;
  /** Idempotent. */
  close(): void;
}

export interface NativeOpenGateConstructor {
  /** `onOpen`: somebody waits. Throws an Error with `errno` (negative) where the kernel or the user's rights have no such thing. */
  new (folder: string, onOpen: () => void): NativeOpenGate;
}

/** Why a view could not be made; the thread is back where it was. */
export interface NativeViewError {
  /** -errno. */
  readonly error: number;
  /** What was tried, for people. */
  readonly step: string;
}
