/**
 * The command's first file: runs the bundle (dist/main.js, one function) through V8's code cache. Compiling the bundle costs a
 * start more than all that the machine needs of JavaScript; with the cache, which the first run of a command leaves, next to nothing.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { Script } from 'node:vm';
import { scanGlobalFlags } from './global-flags.js';

function cacheDirectory(): string | undefined {
  // A service of systemd, as which dockerd and containerd run, has no HOME.
  const { XDG_CACHE_HOME: cache, HOME: home = process.geteuid?.() === 0 ? '/root' : undefined } = process.env;
  if (cache?.startsWith('/')) return `${cache}/tsvmm/code`;
  return home?.startsWith('/') ? `${home}/.cache/tsvmm/code` : undefined;
}

const bundle = `${__dirname}/main.js`;
const { size, mtimeMs } = statSync(bundle);
const args = process.argv.slice(2);
const named = args[scanGlobalFlags(args).command] ?? '';
const command = /^[a-z]+$/.test(named) ? named : 'main';
const directory = cacheDirectory();
const path = `${directory}/${command}-${process.version}-${size.toString(36)}-${Math.floor(mtimeMs).toString(36)}`;

if (command === 'sandbox' || command === 'run' || command === 'boot') {
  // The kernel takes its time to make a VM (a grace period): it begins before all else. Errors show where the VM is used.
  try {
    const addon = require(`${__dirname}/../build/Release/tsvmm.node`) as { prepareKvm(path: string): void };
    addon.prepareKvm('/dev/kvm');
  } catch {
    // The command says it better.
  }
}

let cachedData: Buffer | undefined;
try {
  // What V8 finds there it runs: another user's file, in a folder that the environment names, is not for this one.
  if (statSync(path).uid === process.geteuid?.()) cachedData = readFileSync(path);
} catch {
  // The first run, or no cache folder: compiled anew.
}
// The bundle is plain ASCII, which spares decoding it.
const script = new Script(readFileSync(bundle, 'latin1'), {
  filename: bundle,
  ...(cachedData === undefined ? {} : { cachedData }),
});

let kept = cachedData !== undefined && !script.cachedDataRejected;

/** Keeps the code that this run has compiled for the next one, once. A cache that cannot be written is none. */
function keepCode(): void {
  if (directory === undefined || kept) return;
  kept = true;
  const temporary = `${path}.${process.pid}`;
  try {
    mkdirSync(directory, { recursive: true });
    // What other versions have left.
    for (const name of readdirSync(directory)) {
      if (name.startsWith(`${command}-`)) rmSync(`${directory}/${name}`, { force: true });
    }
    writeFileSync(temporary, script.createCachedData());
    renameSync(temporary, path);
  } catch {
    try {
      rmSync(temporary, { force: true });
    } catch {
      // Where it cannot be removed it was never written.
    }
  }
}

script.runInThisContext()(require, module, __filename, __dirname, keepCode);
