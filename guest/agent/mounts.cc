#include "mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "error.h"
#include "io/fd.h"

namespace tsvmm::agent {

namespace {

struct SystemMount {
  const char* type;
  const char* target;
  unsigned long flags;
  const char* options;
  /// Whether nothing works without it.
  bool needed;
};

constexpr unsigned long kStrict = MS_NOSUID | MS_NODEV | MS_NOEXEC;

constexpr std::array<SystemMount, 9> kSystemMounts = {{
    {"proc", "/proc", kStrict, nullptr, true},
    {"devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755", true},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755", true},
    {"sysfs", "/sys", kStrict, nullptr, false},
    {"cgroup2", "/sys/fs/cgroup", kStrict, nullptr, false},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666", false},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"mqueue", "/dev/mqueue", kStrict, nullptr, false},
    {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777", false},
}};

/// Types that a disk may hold, the likely first. The kernel takes only what really is one.
constexpr std::array<const char*, 6> kDiskTypes = {"ext4", "erofs", "squashfs", "xfs", "btrfs", "vfat"};

/// Lets the groups below the root use every controller that there is.
void enableControllers() {
  std::string names = readFile("/sys/fs/cgroup/cgroup.controllers");
  std::string enable;
  std::size_t begin = 0;
  while (begin < names.size()) {
    const std::size_t end = names.find_first_of(" \n", begin);
    const std::string name = names.substr(begin, end - begin);
    if (!name.empty()) {
      enable += "+" + name + " ";
    }
    if (end == std::string::npos) {
      break;
    }
    begin = end + 1;
  }
  if (!enable.empty()) {
    writeFile("/sys/fs/cgroup/cgroup.subtree_control", enable);
  }
}

void mountDisk(const RootfsSource& source, const std::string& target) {
  const unsigned long flags = MS_SILENT | (source.readonly ? static_cast<unsigned long>(MS_RDONLY) : 0UL);
  int error = ENODEV;
  for (const char* type : kDiskTypes) {
    if (mount(source.source.c_str(), target.c_str(), type, flags, nullptr) == 0) {
      return;
    }
    // ENODEV: the kernel has no such type; EINVAL: the disk holds another. Anything else tells more.
    if (errno != ENODEV && errno != EINVAL) {
      error = errno;
      break;
    }
    error = errno == EINVAL ? EINVAL : error;
  }
  if (error == EINVAL) {
    throw OperationError("no file system that the guest's kernel knows is on " + source.source, error,
                         source.source);
  }
  throw systemError("cannot mount the root file system from", source.source, error);
}

/// Paths in /proc/self/mountinfo have blanks and backslashes in octal.
std::string unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result.push_back(
          static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      result.push_back(text[i]);
    }
  }
  return result;
}

}  // namespace

OperationError systemError(const std::string& what, const std::string& path, int error) {
  return OperationError(what + (path.empty() ? "" : " " + path) + ": " + std::strerror(error), error, path);
}

void leaveRootfs() {
  // Any folder does: what is mounted on it moves over the root.
  if (mount("/", "/run", nullptr, MS_BIND, nullptr) != 0 || chdir("/run") != 0 ||
      mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || chroot(".") != 0 || chdir("/") != 0) {
    throw systemError("cannot move off the initial root file system", "");
  }
  // crun copies itself before it enters a container, so that the container cannot write to it; one on a
  // read-only mount it does not. Where this fails it costs time and nothing else.
  if (mount("/usr", "/usr", nullptr, MS_BIND, nullptr) == 0) {
    mount(nullptr, "/usr", nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV | MS_NOSUID, nullptr);
  }
}

std::vector<std::string> mountSystem() {
  std::vector<std::string> warnings;
  for (const SystemMount& entry : kSystemMounts) {
    mkdir(entry.target, 0755);
    if (mount(entry.type, entry.target, entry.type, entry.flags, entry.options) != 0) {
      const OperationError error =
          systemError("cannot mount " + std::string(entry.type) + " at", entry.target);
      if (entry.needed) {
        throw error;
      }
      warnings.emplace_back(error.what());
    }
  }
  enableControllers();
  return warnings;
}

void mountRootfs(const RootfsSource& source, const std::string& target) {
  if (source.type == RootfsSource::Type::kDisk) {
    makeFolders(target);
    mountDisk(source, target);
  } else {
    mountShare(source.source, target);
  }
}

void mountShare(const std::string& tag, const std::string& target) {
  makeFolders(target);
  if (mount(tag.c_str(), target.c_str(), "virtiofs", 0, nullptr) != 0) {
    throw systemError("cannot mount the share", tag);
  }
}

void enterSource(const std::string& path) {
  struct stat info {};
  // The slash enters it; ENOTDIR: it is a file.
  if (stat((path + "/").c_str(), &info) != 0 && errno != ENOTDIR) {
    throw systemError("cannot reach the source of a bind mount,", path);
  }
}

std::vector<std::string> unmountContainers() {
  const std::string table = readFile("/proc/self/mountinfo");
  std::vector<std::string> targets;
  for (std::size_t begin = 0; begin < table.size();) {
    const std::size_t end = std::min(table.find('\n', begin), table.size());
    const std::string_view line = std::string_view(table).substr(begin, end - begin);
    // The fifth field is the mount point.
    std::size_t field = 0;
    for (int i = 0; i < 4 && field != std::string_view::npos; ++i) {
      field = line.find(' ', field);
      field = field == std::string_view::npos ? field : field + 1;
    }
    if (field != std::string_view::npos) {
      const std::string_view rest = line.substr(field);
      const std::string target = unescape(rest.substr(0, rest.find(' ')));
      if (target.rfind("/run/", 0) == 0) {
        targets.push_back(target);
      }
    }
    begin = end + 1;
  }
  std::vector<std::string> busy;
  for (auto target = targets.rbegin(); target != targets.rend(); ++target) {
    if (umount2(target->c_str(), UMOUNT_NOFOLLOW) != 0 && errno == EBUSY) {
      busy.push_back(*target);
      umount2(target->c_str(), UMOUNT_NOFOLLOW | MNT_DETACH);
    }
  }
  return busy;
}

void makeFolders(const std::string& path) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
      throw systemError("cannot make the folder", part);
    }
    if (end == std::string::npos) {
      return;
    }
  }
}

void removeTree(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    return;
  }
  if (!S_ISDIR(info.st_mode)) {
    unlink(path.c_str());
    return;
  }
  if (DIR* folder = opendir(path.c_str())) {
    while (const dirent* entry = readdir(folder)) {
      const std::string_view name = entry->d_name;
      struct stat child {};
      const std::string childPath = path + "/" + entry->d_name;
      if (name != "." && name != ".." && lstat(childPath.c_str(), &child) == 0 &&
          child.st_dev == info.st_dev) {
        removeTree(childPath);
      }
    }
    closedir(folder);
  }
  rmdir(path.c_str());
}

std::string readFile(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string content;
  std::array<char, 4096> bytes;
  ssize_t count = 0;
  while (fd && (count = read(fd.get(), bytes.data(), bytes.size())) > 0) {
    content.append(bytes.data(), static_cast<std::size_t>(count));
  }
  return content;
}

bool writeFile(const std::string& path, const std::string& content) {
  const Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  std::size_t written = 0;
  while (fd && written < content.size()) {
    const ssize_t count = write(fd.get(), content.data() + written, content.size() - written);
    if (count < 0) {
      return false;
    }
    written += static_cast<std::size_t>(count);
  }
  return static_cast<bool>(fd);
}

}  // namespace tsvmm::agent
