/**
 * The native addon, typed. Nothing else in the project touches it untyped; each function is documented where the
 * layer that uses it wraps it.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { KvmAddon } from './kvm.js';
import type { MachineAddon } from './machine.js';
import type { MemoryAddon } from './memory.js';
import type { NetworkAddon } from './network.js';
import type { SystemAddon } from './system.js';
import type { VirtioAddon } from './virtio.js';

export type * from './kvm.js';
export type * from './machine.js';
export type * from './memory.js';
export type * from './network.js';
export type * from './system.js';
export type * from './virtio.js';

/** What the addon exports. */
export interface Addon extends KvmAddon, MemoryAddon, MachineAddon, NetworkAddon, SystemAddon, VirtioAddon {}

let loaded: Addon | undefined;

/** The folder of the package: where package.json is. */
export function packageRoot(): string {
  return root;
}

const here = dirname(fileURLToPath(import.meta.url));
// dist/tsvmm.cjs or dist/index.js: one up. Compiled tests: out/js/src/addon: four up.
const root = here.endsWith('dist') ? dirname(here) : join(here, '../../../..');

/**
 * Loads the addon on first use: build/Release/tsvmm.node, or the file that TSVMM_ADDON names (one with sanitizers, for tests).
 * Throws an Error that says how to build it if it is not there.
 */
export function addon(): Addon {
  if (loaded === undefined) {
    const require = createRequire(import.meta.url);
    const path = process.env.TSVMM_ADDON ?? join(root, 'build/Release/tsvmm.node');
    try {
      loaded = require(path) as Addon;
    } catch (error) {
      const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
      throw new Error(`the native addon does not load (${reason}); build it with: npm run build`);
    }
  }
  return loaded;
}
