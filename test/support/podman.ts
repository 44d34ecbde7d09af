import type { Engines, RunOptions } from './engines.js';
import { makeRootArchive, RUNTIME } from './engines.js';
import type { Outcome } from './tsvmm.js';

export interface Podman {
  podman(args: readonly string[], options?: RunOptions): Promise<Outcome>;
  /** One that has to succeed; its standard output. */
  ok(args: readonly string[], options?: RunOptions): Promise<string>;
}

/** Configures podman for the runtime, and gives it an image, `box`. */
export async function openPodman(engines: Engines): Promise<Podman> {
  const configuration = `
[engine]
runtime = "tested"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
tested = ["${RUNTIME}"]
[network]
network_backend = "netavark"
`;
  await engines.write('/etc/containers/containers.conf', configuration);
  await engines.write('/etc/containers/policy.json', '{"default":[{"type":"insecureAcceptAnything"}]}');
  await engines.write('/etc/containers/registries.conf', '');
  await engines.write(
    '/etc/containers/storage.conf',
    '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n',
  );
  const podman: Podman = {
    podman: (args, options) => engines.run(['podman', ...args], options),
    ok: (args, options) => engines.ok(['podman', ...args], options),
  };
  await podman.ok(['import', '--quiet', makeRootArchive(engines.folder), 'box']);
  return podman;
}
