import type { FsIdMap, FsIdRange } from '../virtio/fs/index.js';
import { UserError } from './errors.js';
import type { IdMapping, LinuxSection, Spec } from './spec/types.js';

/** Who runs tsvmm, in the user namespace in which it runs. */
export interface HostUser {
  readonly uid: number;
  readonly gid: number;
}

export interface Owners {
  /** For all shares; undefined: the guest's ids are the host's. */
  readonly idMap: FsIdMap | undefined;
  /** What is left of config.json's `linux` for the guest. */
  readonly linux: LinuxSection | undefined;
}

/** Of Linux's ids all but the last, which means "none". */
const ALL_IDS = 0xffffffff;

export function hostUser(): HostUser {
  return { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
}

/**
 * Decides whose the files are that the guest makes on the host. Root's are whose the guest says (in a user namespace that the command
 * runs in, its kernel says what that means on the host), and a user namespace of the bundle is made in the guest. An ordinary user can make files as
 * himself only: the bundle's maps become the shares' maps, and without maps the guest's root is that user. The guest then makes no user
 * namespace, whose maps would be applied a second time.
 * @throws UserError that names the mapping, or the user, that cannot be
 */
export function ownersOf(spec: Spec, user: HostUser, warnings: string[]): Owners {
  const { linux } = spec;
  if (user.uid === 0) return { idMap: undefined, linux };
  const { uidMappings: users = [], gidMappings: groups = [], namespaces, ...kept } = linux ?? {};
  const idMap = {
    uids: ranges(users, user.uid, 'linux.uidMappings', warnings),
    gids: ranges(groups, user.gid, 'linux.gidMappings', warnings),
  };
  const { uid = 0, gid = 0 } = spec.process.user ?? {};
  checkProcess('uid', uid, idMap.uids, users.length > 0, warnings);
  checkProcess('gid', gid, idMap.gids, groups.length > 0, warnings);
  if (linux === undefined) return { idMap, linux };
  const without = namespaces?.filter(({ type, path }) => type !== 'user' || path !== undefined);
  return { idMap, linux: { ...kept, ...(without === undefined ? {} : { namespaces: without }) } };
}

function ranges(mappings: readonly IdMapping[], own: number, field: string, warnings: string[]): FsIdRange[] {
  if (mappings.length === 0) return [{ guest: 0, host: own, count: 1 }];
  const found = mappings.map(({ containerID, hostID, size }, index) => {
    if (size === 0 || containerID + size > ALL_IDS || hostID + size > ALL_IDS) {
      throw new UserError(
        `config.json: ${field}[${index}]: ${size} ids from ${containerID} (host: ${hostID}) on: there are no such`,
      );
    }
    return { guest: containerID, host: hostID, count: size };
  });
  if (!found.some(({ host, count }) => own >= host && own < host + count)) {
    const what = field === 'linux.uidMappings' ? 'user' : 'group';
    throw new UserError(
      `config.json: ${field}: maps nothing to ${what} ${own}, who runs tsvmm: an ordinary user makes files as himself only`,
    );
  }
  if (found.some(({ count }) => count > 1) || found.length > 1) {
    warnings.push(
      `${field}: files can be made as ${own} only; for all of its ids, run in a user namespace (unshare --map-root-user --map-auto)`,
    );
  }
  return found;
}

/** A user namespace has no process of who is not mapped; a guest has, but on the shares it can make nothing. */
function checkProcess(
  name: 'uid' | 'gid',
  id: number,
  map: readonly FsIdRange[],
  mapped: boolean,
  warnings: string[],
): void {
  if (map.some(({ guest, count }) => id >= guest && id < guest + count)) return;
  if (mapped) {
    throw new UserError(`config.json: process.user.${name}: ${id} is not in linux.${name}Mappings`);
  }
  warnings.push(`process.user.${name}: ${id} is nobody on this host: the process cannot make files on it`);
}
