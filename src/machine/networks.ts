import type { Nic } from '../virtio/net/index.js';
import type { MachineConfig } from './config.js';

/** Opens what the machine's network cards are connected to: `net0`, `net1`, ... in the order of the configuration. */
export async function openNetworks(config: MachineConfig, release: (() => void)[]): Promise<readonly Nic[]> {
  const { networks = [], log = () => {} } = config;
  const nics: Nic[] = [];
  if (networks.length === 0) return nics;
  const { describeNet } = await import('../virtio/net/index.js');
  for (const [index, network] of networks.entries()) {
    const name = `net${index}`;
    const nic = await describeNet({ ...network, name, onEnd: (why) => log(`${name}: ${why}`) });
    release.push(() => nic.close());
    nics.push(nic);
  }
  return nics;
}
