import { addon } from '../../addon/index.js';
import type { Container } from '../container.js';
import { reasonOfErrno } from '../errors.js';
import { hostBootTime, showProcesses } from './process-view.js';

/**
 * Gives this thread a mount namespace whose root is what the container sees of the host: its root file system with the bind mounts.
 * Who enters the namespaces of the container's process ID, as `podman cp` and `podman top` do, then finds the container's files and
 * processes. From here on this
 * thread reaches the state's folder only, as its working folder. Without the rights for it (rootless) nothing happens.
 */
export function enterContainerView(container: Container): void {
  if (process.geteuid?.() !== 0) return;
  const { bundle, guest, store, options } = container;
  const paths = new Map(guest.exports.map(({ name, path }) => [name, path]));
  const mounts = (guest.spec.mounts ?? []).flatMap(({ source = '', destination, options: flags = [] }) => {
    const path = source.startsWith('mounts/') ? paths.get(source.slice('mounts/'.length)) : undefined;
    if (path === undefined) return [];
    return [
      { source: path, destination, readOnly: flags.includes('ro'), file: guest.files.has(destination) },
    ];
  });
  const bootTime = hostBootTime();
  const problem = addon().enterView({
    rootfs: bundle.root.type === 'directory' ? bundle.root.directory : null,
    mounts,
    emptyProc: true,
    stateDirectory: store.folder(options.id),
  });
  if (typeof problem === 'number') {
    container.stateIsHere();
    if (problem === 1) showProcesses(container, bootTime);
  } else {
    const reason = `${problem.step}: ${reasonOfErrno(problem.error)}`;
    container.logLine(`warning: other programs have no view of the container's files: ${reason}`);
  }
}
