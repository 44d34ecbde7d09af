/** Given by src/cli/launch.ts; not there where main.ts runs by itself. */
declare const keepCode: (() => void) | undefined;

/** Leaves the code that has been compiled to the next run of the command: what ends this process without main.ts, or leaves its file system, calls it. */
export function keepCompiledCode(): void {
  if (typeof keepCode === 'function') keepCode();
}
