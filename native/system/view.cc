#include "system/view.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string_view>
#include <utility>

#include "io/fd.h"
#include "io/inherited_fd.h"

// <sys/mount.h> and <linux/mount.h> do not go together in all versions of glibc.
extern "C" int mount(const char*, const char*, const char*, unsigned long, const void*) noexcept;
extern "C" int umount2(const char*, int) noexcept;

namespace tsvmm::system {
namespace {

constexpr unsigned long kRecursiveSlave = MS_REC | MS_SLAVE;
constexpr int kDetach = 2;  // MNT_DETACH

long openTree(const char* path) {
  return syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
}

/// Puts a tree that is mounted nowhere on what `target` is.
long attach(const Fd& tree, const Fd& target) {
  return syscall(SYS_move_mount, tree.get(), "", target.get(), "",
                 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

long restrict(const Fd& tree, bool readOnly) {
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (readOnly ? MOUNT_ATTR_RDONLY : 0);
  return syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                 sizeof attributes);
}

/// O_PATH of what `path` is for a process whose root is `root`.
Fd resolve(const Fd& root, const std::string& path, uint64_t flags = 0) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | flags;
  long result;
  do {
    result = syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how);
  } while (result < 0 && (errno == EAGAIN || errno == EINTR));  // EAGAIN: something was renamed meanwhile
  return Fd(static_cast<int>(result));
}

int isFolder(const Fd& file, bool& folder) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) {
    return -errno;
  }
  folder = S_ISDIR(status.st_mode);
  return 0;
}

/// Makes the place of a mount in the view's own file system in memory; in nothing that is mounted on it.
void makePlace(const Fd& root, std::string_view path, bool folder) {
  Fd parent(fcntl(root.get(), F_DUPFD_CLOEXEC, 0));
  while (parent) {
    const size_t begin = path.find_first_not_of('/');
    if (begin == std::string_view::npos) {
      return;
    }
    path.remove_prefix(begin);
    const std::string name(path.substr(0, path.find('/')));
    path.remove_prefix(name.size());
    if (name == "..") {
      return;
    }
    const bool last = path.find_first_not_of('/') == std::string_view::npos;
    if (last && !folder) {
      mknodat(parent.get(), name.c_str(), S_IFREG | 0644, 0);
      return;
    }
    mkdirat(parent.get(), name.c_str(), 0755);
    parent = resolve(parent, name, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
  }
}

ViewError failed(std::string step) { return {-errno, std::move(step)}; }

/// Where the calling thread is, to go back to.
class Origin {
 public:
  Origin()
      : mounts_(open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC)),
        folder_(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)) {}

  /// Moves the thread into a copy of its mount namespace.
  std::optional<ViewError> leave() const {
    if (!mounts_ || !folder_) {
      return failed("open /proc/thread-self/ns/mnt");
    }
    if (unshare(CLONE_NEWNS | CLONE_FS) != 0) {
      return failed("unshare a mount namespace");
    }
    // What happens there is no concern of the host's; what the host takes away is taken away there.
    if (mount(nullptr, "/", nullptr, kRecursiveSlave, nullptr) != 0) {
      auto error = failed("make the mounts slaves of the host's");
      comeBack();
      return error;
    }
    return std::nullopt;
  }

  void comeBack() const {
    if (setns(mounts_.get(), CLONE_NEWNS) == 0) {
      [[maybe_unused]] const int result = fchdir(folder_.get());
    }
  }

  Fd takeMounts() { return std::move(mounts_); }

 private:
  Fd mounts_;
  Fd folder_;
};

class Builder {
 public:
  explicit Builder(const View& view) : view_(view) {}

  bool hasProc() const { return hasProc_; }

  std::optional<ViewError> build() {
    const Origin before;
    if (auto error = before.leave()) {
      return error;
    }
    auto error = fill();
    if (error) {
      before.comeBack();
    }
    return error;
  }

 private:
  std::optional<ViewError> fill() {
    // Opened here, they belong to mounts of this namespace, and keep none of the host's busy.
    InheritedFd::openFolder();
    directory_ = Fd(open(view_.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory_) {
      return failed("open " + view_.directory);
    }
    if (auto error = view_.rootfs.empty() ? makeMemoryRoot() : bindRoot()) {
      return error;
    }
    for (const View::Mount& each : view_.mounts) {
      if (auto error = bind(each)) {
        return error;
      }
    }
    if (auto error = addProc()) {
      return error;
    }
    // A disk's root has no content here, and is not to get any.
    if (view_.rootfs.empty() && !setReadOnly()) {
      return failed("make the root read-only");
    }
    // Both at the same place: the old root lies on the new one until it is detached.
    if (fchdir(root_.get()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0) {
      return failed("pivot_root");
    }
    if (umount2(".", kDetach) != 0) {
      return failed("detach the old root");
    }
    if (fchdir(directory_.get()) != 0) {
      return failed("change to " + view_.directory);
    }
    return std::nullopt;
  }

  std::optional<ViewError> bindRoot() {
    const Fd tree(static_cast<int>(openTree(view_.rootfs.c_str())));
    const Fd place(open(view_.rootfs.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!tree || !place || restrict(tree, view_.readOnly) != 0 || attach(tree, place) != 0) {
      return failed("bind the root file system " + view_.rootfs);
    }
    // The descriptor of a tree is its root also after it was attached.
    root_ = Fd(fcntl(tree.get(), F_DUPFD_CLOEXEC, 0));
    return std::nullopt;
  }

  /// A file system in memory that is mounted nowhere; none where it cannot be made.
  static Fd makeMemory(const char* size, const char* inodes) {
    const Fd context(static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
    const auto set = [&context](const char* key, const char* value) {
      return syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, key, value, 0) == 0;
    };
    if (!context || !set("mode", "0755") || !set("size", size) || !set("nr_inodes", inodes) ||
        syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
      return {};
    }
    return Fd(static_cast<int>(
        syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)));
  }

  std::optional<ViewError> makeMemoryRoot() {
    Fd tree = makeMemory("1m", "4096");
    if (!tree || attach(tree, directory_) != 0) {
      return failed("mount a file system in memory");
    }
    root_ = std::move(tree);
    makePlace(root_, "proc", true);
    return std::nullopt;
  }

  bool setReadOnly() {
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    return syscall(SYS_mount_setattr, root_.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0;
  }

  std::optional<ViewError> bind(const View::Mount& each) {
    const Fd tree(static_cast<int>(openTree(each.source.c_str())));
    bool folder = false;
    if (!tree || isFolder(tree, folder) != 0) {
      return failed("open the source " + each.source);
    }
    if (view_.rootfs.empty()) {
      makePlace(root_, each.destination, folder);
    }
    const Fd place = resolve(root_, each.destination);
    bool onFolder = false;
    if (!place || isFolder(place, onFolder) != 0 || folder != onFolder) {
      return std::nullopt;
    }
    if (restrict(tree, each.readOnly) != 0 || attach(tree, place) != 0) {
      return failed("bind " + each.source + " on " + each.destination);
    }
    return std::nullopt;
  }

  std::optional<ViewError> addProc() {
    const Fd place = resolve(root_, "proc", RESOLVE_NO_SYMLINKS);
    bool folder = false;
    if (!place || isFolder(place, folder) != 0 || !folder) {
      return std::nullopt;
    }
    const Fd tree = view_.emptyProc ? makeMemory("32m", "65536") : Fd(static_cast<int>(openTree("/proc")));
    if (!tree || attach(tree, place) != 0) {
      return failed("mount /proc");
    }
    hasProc_ = true;
    return std::nullopt;
  }

  const View& view_;
  Fd directory_;
  Fd root_;
  bool hasProc_ = false;
};

}  // namespace

std::optional<ViewError> enterView(const View& view, bool* hasProc) {
  Builder builder(view);
  auto error = builder.build();
  if (hasProc != nullptr) {
    *hasProc = builder.hasProc();
  }
  return error;
}

int separateMounts() {
  Origin before;
  const auto error = before.leave();
  return error ? error->error : before.takeMounts().release();
}

}  // namespace tsvmm::system
