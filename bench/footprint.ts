/** Memory of a virtual machine monitor beyond its guest's RAM, in KiB. */
export interface Beyond {
  readonly resident: number;
  readonly proportional: number;
}

interface Mapping {
  size: number;
  rss: number;
  pss: number;
  path: string;
}

/**
 * From `/proc/PID/smaps` (proc(5)), all mappings but the guest's RAM: of those of about its size the one with the most
 * pages. Node's executable counts in whole: the benchmark is a Node process too, which would take half of it away.
 * @throws Error where there is no mapping that could be the guest's RAM.
 */
export function beyondGuest(smaps: string, guestBytes: number, nodePath = process.execPath): Beyond {
  const mappings = parse(smaps);
  const guestKib = guestBytes / 1024;
  const ram = mappings
    .filter(({ size }) => size >= guestKib && size < guestKib * 1.5)
    .reduce<Mapping | undefined>(
      (best, mapping) => (mapping.rss > (best?.rss ?? 0) ? mapping : best),
      undefined,
    );
  if (ram === undefined) throw new Error(`no mapping of ${guestKib} KiB that holds a guest's RAM`);
  let resident = 0;
  let proportional = 0;
  for (const mapping of mappings) {
    if (mapping === ram) continue;
    resident += mapping.rss;
    proportional += mapping.path === nodePath ? mapping.rss : mapping.pss;
  }
  return { resident, proportional };
}

function parse(smaps: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of smaps.split('\n')) {
    const head = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$/.exec(line);
    if (head) mappings.push({ size: 0, rss: 0, pss: 0, path: head[1] ?? '' });
    const last = mappings.at(-1);
    const [, key, value] = /^(Size|Rss|Pss): +(\d+) kB$/.exec(line) ?? [];
    if (last === undefined || value === undefined) continue;
    if (key === 'Size') last.size = Number(value);
    if (key === 'Rss') last.rss = Number(value);
    if (key === 'Pss') last.pss = Number(value);
  }
  return mappings;
}
