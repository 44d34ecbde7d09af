#pragma once

#include <string>
#include <vector>

#include "params.h"

namespace tsvmm::agent {

/// Puts a mount of the initramfs over the root, so that pivot_root (which refuses the initramfs itself) works
/// in every mount namespace made from here. Throws OperationError.
void leaveRootfs();

/// Mounts what programs expect: proc, sys, dev, pts, shm, mqueue, run, tmp and the control groups, with every
/// controller enabled for the groups below. Returns a warning for each that the kernel does not have. Throws
/// OperationError for those that nothing works without (proc, dev, run).
std::vector<std::string> mountSystem();

/// Mounts a container's root file system at `target`, which it makes. Throws OperationError.
void mountRootfs(const RootfsSource& source, const std::string& target);

/// Mounts the share that holds the sources of bind mounts at `target`, which it makes. Throws OperationError.
void mountShare(const std::string& tag, const std::string& target);

/// Makes sure that a bind mount's source is there: its file system, where it has one of its own, is mounted
/// by the kernel when somebody enters it. Throws OperationError.
void enterSource(const std::string& path);

/// Unmounts what containers have below /run, newest first, and what is still in use as soon as it no longer
/// is. Returns the paths of the latter.
std::vector<std::string> unmountContainers();

/// Makes a folder and those above it (mode 0755). Throws OperationError.
void makeFolders(const std::string& path);
/// Removes a file or a folder with all below it, without leaving its file system. Errors are ignored: this
/// tidies a tmpfs.
void removeTree(const std::string& path);
/// A small file's content. Empty where it can't be read.
std::string readFile(const std::string& path);
/// Writes a file. False with errno.
bool writeFile(const std::string& path, const std::string& content);

}  // namespace tsvmm::agent
