import { UserError } from './errors.js';
import { KNOWN_CAPABILITIES } from './spec/capabilities.js';
import { parseExactJson, readExactJson, stringifyExactJson } from './spec/exact-json.js';
import { parseSpec } from './spec/load.js';
import type { Process, Spec } from './spec/types.js';

/** A process as the specification has it, and how its large numbers were written. */
export interface ExactProcess {
  readonly process: Process;
  readonly digits: ReadonlyMap<number, string>;
}

/** What of a container's own process another one has different. */
export interface ProcessChanges {
  readonly args: readonly string[];
  readonly cwd?: string | undefined;
  readonly env?: readonly string[] | undefined;
  /** `uid` or `uid:gid`. */
  readonly user?: string | undefined;
  readonly additionalGids?: readonly string[] | undefined;
  readonly capabilities?: readonly string[] | undefined;
  readonly terminal: boolean;
  readonly noNewPrivileges?: boolean | undefined;
  readonly apparmorProfile?: string | undefined;
  readonly selinuxLabel?: string | undefined;
}

/** Checks the text of `exec --process`; `name` stands for it in messages. @throws UserError */
export function parseProcess(text: string, name: string): ExactProcess {
  const exact = readExactJson(text, name);
  // The configuration's own checks, on one that has nothing else in it.
  const config = { ociVersion: '1.0.0', root: { path: 'rootfs' }, process: exact.value };
  const { spec, digits } = parseSpec(stringifyExactJson(config, exact.digits), name);
  return { process: spec.process, digits };
}

/**
 * The process that the options of `exec` describe: that of the container's configuration, but for what they say, as runc makes it.
 * @param config the text of the configuration with which the container was made
 * @throws UserError
 */
export function processFrom(
  config: string,
  changes: ProcessChanges,
  warn: (message: string) => void = () => {},
): ExactProcess {
  const { value, digits } = parseExactJson(config);
  // Checked when the container was made of it.
  const { process: own } = value as Spec;
  const { consoleSize: _size, ...kept } = own;
  const process: Process = { ...kept, args: [...changes.args], terminal: changes.terminal };
  if (changes.cwd !== undefined) {
    if (!changes.cwd.startsWith('/'))
      throw new UserError(`--cwd: expected an absolute path, got ${changes.cwd}`);
    process.cwd = changes.cwd;
  }
  if (changes.env !== undefined) process.env = [...(own.env ?? []), ...changes.env];
  const user = { ...own.user };
  if (changes.user !== undefined && changes.user !== '') Object.assign(user, userOf(changes.user));
  if (changes.additionalGids !== undefined) {
    const gids = changes.additionalGids.flatMap((text) =>
      text.split(',').map((gid) => idOf(gid, '--additional-gids')),
    );
    user.additionalGids = [...(user.additionalGids ?? []), ...gids];
  }
  process.user = user;
  if (changes.capabilities !== undefined) {
    const added = changes.capabilities.map(capabilityOf).filter((name) => isKnown(name, warn));
    const sets = own.capabilities ?? {};
    const withAdded = (set: readonly string[] = []): string[] => [...new Set([...set, ...added])];
    process.capabilities = {
      ...sets,
      bounding: withAdded(sets.bounding),
      effective: withAdded(sets.effective),
      permitted: withAdded(sets.permitted),
      ambient: withAdded(sets.ambient),
    };
  }
  if (changes.noNewPrivileges !== undefined) process.noNewPrivileges = changes.noNewPrivileges;
  if (changes.apparmorProfile !== undefined) process.apparmorProfile = changes.apparmorProfile;
  if (changes.selinuxLabel !== undefined) process.selinuxLabel = changes.selinuxLabel;
  return { process, digits };
}

function userOf(text: string): { uid: number; gid?: number } {
  const [uid = '', gid, ...more] = text.split(':');
  if (more.length > 0) throw new UserError(`--user: expected UID or UID:GID, got ${JSON.stringify(text)}`);
  return { uid: idOf(uid, '--user'), ...(gid === undefined ? {} : { gid: idOf(gid, '--user') }) };
}

function idOf(text: string, option: string): number {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (id < 2 ** 32 - 1) return id;
  throw new UserError(`${option}: expected numbers of users or groups, got ${JSON.stringify(text)}`);
}

function capabilityOf(text: string): string {
  const upper = text.toUpperCase();
  return upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}

/** "Any value which cannot be mapped to a relevant kernel interface ... MUST be logged as a warning" (config.md). */
function isKnown(name: string, warn: (message: string) => void): boolean {
  if (KNOWN_CAPABILITIES.has(name)) return true;
  warn(`--cap: there is no capability ${name}`);
  return false;
}
