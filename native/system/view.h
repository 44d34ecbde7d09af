#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tsvmm::system {

/// What a container sees of the host's files, as a mount namespace: for tools that enter /proc/PID/ns/mnt,
/// and so that the thread that stays in it keeps no other mount of the host.
struct View {
  struct Mount {
    std::string source;       // on the host
    std::string destination;  // in the view
    bool readOnly = false;
  };
  /// Empty: a file system in memory in which the mounts have their places.
  std::string rootfs;
  bool readOnly = false;
  std::vector<Mount> mounts;  // in their order
  /// On /proc an empty file system in memory takes the place of the host's.
  bool emptyProc = false;
  /// Where the thread is afterwards: the folder itself, which has no path in the view.
  std::string directory;
};

struct ViewError {
  int error;         // -errno
  std::string step;  // what was tried, for people
};

/// Moves the calling thread into a new mount namespace whose root is the view, with the host's /proc where it
/// has a folder of this name (`hasProc`, where given, tells); every other thread stays where it is. The old
/// root is detached. What is in the rootfs is hostile: destinations are resolved inside of it, and nothing is
/// created in it: a mount whose destination is missing, or is not of the source's type, is left out. Nothing
/// in the view is a device or gives rights (nodev, nosuid). Needs CAP_SYS_ADMIN in its user namespace.
/// Returns nothing, or why not; the thread is then back where it was.
std::optional<ViewError> enterView(const View& view, bool* hasProc = nullptr);

/// Moves the calling thread into a copy of its mount namespace: what is mounted in one of them is not seen in
/// the other, but for what the host mounts from now on. Needs CAP_SYS_ADMIN. Returns a descriptor of
/// the namespace that it has left, or -errno; the thread is then where it was.
int separateMounts();

}  // namespace tsvmm::system
