import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
} from 'node:fs';
import { freemem, homedir } from 'node:os';
import { join } from 'node:path';
import { addon, packageRoot } from '../addon/index.js';
import { Kvm } from '../kvm/kvm.js';
import { readEnvironment } from './config/environment.js';
import { loadConfigFile } from './config/file.js';
import type { Layer } from './config/keys.js';
import { NEEDED_CAPABILITIES, type Probes } from './doctor.js';
import { codeOf, messageOf, reasonOf } from './errors.js';
import { guestFilePlaces } from './guest-files.js';

/** The real host, as the doctor sees it. */
export function hostProbes(env: NodeJS.ProcessEnv = process.env): Probes {
  const cacheDirectory = join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'tsvmm');
  return {
    architecture: process.arch,
    read,
    exists: existsSync,
    access,
    addonProblem: () => {
      try {
        addon();
        return undefined;
      } catch (error) {
        return messageOf(error);
      }
    },
    capabilities,
    availableMemory: availableMemory(),
    guestFilePlaces: (what) => {
      const set = settingsOf(env);
      const named = typeof set === 'string' ? undefined : set.layer[what];
      return named === undefined ? guestFilePlaces(what, env) : [named];
    },
    settings: () => {
      const set = settingsOf(env);
      return typeof set === 'string' ? set : { path: set.path, names: Object.keys(set.layer) };
    },
    cacheDirectory,
    cacheProblem: () => cacheProblem(cacheDirectory),
    neededPackages: () =>
      ['native', 'guest', 'testbed', 'test'].flatMap((folder) =>
        (read(join(packageRoot(), folder, 'packages.txt')) ?? '')
          .split('\n')
          .map((line) => line.replace(/#.*/, '').trim())
          .filter((line) => line !== ''),
      ),
  };
}

function settingsOf(env: NodeJS.ProcessEnv): { readonly path: string; readonly layer: Layer } | string {
  try {
    const { path, settings } = loadConfigFile(env);
    return { path, layer: { ...settings, ...readEnvironment(env) } };
  } catch (error) {
    return messageOf(error);
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // "Cannot be read" is an answer here; what follows from it is the examination's to say.
    return undefined;
  }
}

function access(path: string): 'ok' | 'absent' | 'denied' {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    // A node whose driver is not there, or that a device cgroup forbids, only open(2) tells.
    closeSync(openSync(path, 'r+'));
    return 'ok';
  } catch (error) {
    const code = codeOf(error);
    return code === 'EACCES' || code === 'EPERM' ? 'denied' : 'absent';
  }
}

function capabilities(): ReadonlyMap<string, number> | string {
  try {
    const kvm = Kvm.open();
    try {
      return new Map([...NEEDED_CAPABILITIES].map(([name, number]) => [name, kvm.checkExtension(number)]));
    } finally {
      kvm.close();
    }
  } catch (error) {
    return messageOf(error);
  }
}

function availableMemory(): number {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(read('/proc/meminfo') ?? '')?.[1];
  return kib === undefined ? freemem() : Number(kib) * 1024;
}

function cacheProblem(directory: string): string | undefined {
  const probe = join(directory, `.doctor-${process.pid}`);
  try {
    mkdirSync(directory, { recursive: true });
    closeSync(openSync(probe, 'wx'));
    unlinkSync(probe);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}
