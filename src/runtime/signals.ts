/** The numbers of the signals on x86-64 (signal(7)) that are passed on to a container's process. */
export const FORWARDED_SIGNALS = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGALRM: 14,
  SIGTERM: 15,
  SIGXCPU: 24,
  SIGIO: 29,
  SIGPWR: 30,
} as const satisfies Partial<Record<NodeJS.Signals, number>>;

/** Calls `listener` with the number of each such signal; the returned function ends that. */
export function onSignals(listener: (signal: number) => void): () => void {
  const removers: (() => void)[] = [];
  for (const [name, number] of Object.entries(FORWARDED_SIGNALS)) {
    const handler = (): void => listener(number);
    process.on(name, handler);
    removers.push(() => process.off(name, handler));
  }
  return () => {
    for (const remove of removers) remove();
  };
}
