import type { ChildProcess } from 'node:child_process';

/** A user-mode network by passt (https://passt.top): the guest shares the host's addresses, and needs no rights on the host. */
export interface PasstOptions {
  /** `passt` from the PATH by default. */
  readonly program?: string | undefined;
  /** More arguments of it: `['-t', '8080:80']` forwards the host's port 8080 to the guest's 80. */
  readonly arguments?: readonly string[] | undefined;
}

const MAX_SAID = 2000;

/**
 * Starts passt on its end of a socket pair; it ends when the other end is closed, so also with this process.
 * @returns a function that ends it
 * @throws Error when it cannot be started; `onEnd` hears why it has ended by itself, which may be at once
 */
export async function startPasst(
  options: PasstOptions,
  socket: number,
  onEnd: (why: string) => void,
): Promise<() => void> {
  const { program = 'passt', arguments: more = [] } = options;
  const { spawn } = await import('node:child_process');
  const child = spawn(program, ['--foreground', '--quiet', '--fd', '3', ...more], {
    stdio: ['ignore', 'ignore', 'pipe', socket],
  });
  let said = '';
  const ended = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (status, signal) => resolve(signal ?? `status ${status}`));
  });
  if (child.pid === undefined) {
    const absent = (await ended).includes('ENOENT');
    throw new Error(
      absent
        ? `network: ${program} is not installed; on Debian: apt-get install passt`
        : `network: ${program} cannot be started: ${await ended}`,
    );
  }
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-MAX_SAID);
  });
  let expected = false;
  ended.then((how) => {
    const lines = said.split('\n').filter((line) => line.trim() !== '' && !/ to syslog$/.test(line));
    if (!expected) onEnd(`${program} has ended (${how})${lines.length > 0 ? `: ${lines.join('; ')}` : ''}`);
  });
  letGo(child);
  return () => {
    expected = true;
    child.kill();
  };
}

/** It keeps neither the event loop nor the process from ending. */
function letGo(child: ChildProcess): void {
  child.unref();
  const { stderr } = child;
  if (stderr !== null && 'unref' in stderr && typeof stderr.unref === 'function') stderr.unref();
}
