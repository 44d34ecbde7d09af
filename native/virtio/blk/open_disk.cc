#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "io/uring.h"
#include "virtio/blk/disk.h"

namespace tsvmm::virtio {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw std::runtime_error("disk " + path + ": " + what);
}

std::string describe(int error, bool readOnly) {
  switch (error) {
    case ENOENT:
      return "there is no such file";
    case EACCES:
    case EPERM:
      return readOnly ? "no permission to read it"
                      : "no permission to write to it; open it read-only (ro) instead?";
    case EISDIR:
      return "is a folder; a raw disk image or a block device is expected";
    case EROFS:
      return "is on a read-only file system; open it read-only (ro) instead";
    case ETXTBSY:
      return "is a program that is being executed";
    default:
      return std::generic_category().message(error);
  }
}

void lock(DiskFile& file, const std::string& path) {
  struct flock range {};
  range.l_type = file.readOnly ? F_RDLCK : F_WRLCK;
  range.l_whence = SEEK_SET;
  if (fcntl(file.fd.get(), F_OFD_SETLK, &range) == 0) {
    return;
  }
  if (errno == EAGAIN || errno == EACCES) {
    fail(path, file.readOnly
                   ? "it is already in use as a writable disk"
                   : "it is already in use as a disk; a writable disk belongs to one machine at a time");
  }
  if (errno == EINVAL || errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS) {
    file.locked = false;
    return;
  }
  fail(path, "cannot lock it: " + std::generic_category().message(errno));
}

/// Fills in what the file is and how large.
void measure(DiskFile& file) {
  struct stat status {};
  if (fstat(file.fd.get(), &status) != 0) {
    fail(file.path, describe(errno, file.readOnly));
  }
  if (S_ISBLK(status.st_mode)) {
    file.blockDevice = true;
    int blockSize = 0;
    if (ioctl(file.fd.get(), BLKGETSIZE64, &file.size) != 0 ||
        ioctl(file.fd.get(), BLKSSZGET, &blockSize) != 0) {
      fail(file.path, "cannot ask the block device for its size: " + std::generic_category().message(errno));
    }
    file.blockSize = static_cast<uint32_t>(blockSize);
  } else if (S_ISREG(status.st_mode)) {
    file.size = static_cast<uint64_t>(status.st_size);
    struct statfs system {};
    file.inMemory = fstatfs(file.fd.get(), &system) == 0 &&
                    (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
  } else {
    fail(file.path,
         S_ISDIR(status.st_mode) ? describe(EISDIR, file.readOnly) : "is neither a file nor a block device");
  }
  if (file.size == 0) {
    fail(file.path, "is empty");
  }
  if (!file.readOnly && file.size % 512 != 0) {
    fail(file.path, "its " + std::to_string(file.size) +
                        " bytes are not a whole number of 512-byte sectors; enlarge it (truncate -s %512) or "
                        "open it read-only (ro)");
  }
}

/// What direct I/O on the file wants offsets, lengths and addresses to be multiples of, found by reading.
uint32_t directAlignment(const DiskFile& file) {
  constexpr uint32_t kMost = 64 << 10;
  const std::unique_ptr<void, decltype(&free)> buffer(aligned_alloc(kMost, 2 * kMost), free);
  if (!buffer) {
    fail(file.path, "no memory");
  }
  // Addresses just as little aligned as lengths.
  for (uint32_t alignment = 512; alignment <= kMost; alignment *= 2) {
    auto* at = static_cast<uint8_t*>(buffer.get()) + alignment % kMost;
    if (pread(file.directFd.get(), at, alignment, 0) >= 0) {
      return alignment;
    }
    if (errno != EINVAL) {
      break;
    }
  }
  fail(file.path, "cannot be read by direct I/O (direct): " + std::generic_category().message(errno));
}

/// Opens the very file that is open already once more, past the page cache.
void openDirect(DiskFile& file) {
  const std::string self = "/proc/self/fd/" + std::to_string(file.fd.get());
  file.directFd.reset(open(self.c_str(), (file.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT));
  if (!file.directFd) {
    fail(file.path, errno == EINVAL ? "its file system has no direct I/O (O_DIRECT); open it without direct"
                                    : "cannot open it for direct I/O (direct): " +
                                          std::generic_category().message(errno));
  }
  file.alignment = std::max(directAlignment(file), file.blockSize);
  file.blockSize = std::min<uint32_t>(file.alignment, 4096);
}

/// io_uring was asked for by name.
void requireUring(const std::string& path) {
  int error = 0;
  if (!Uring::create(1, error)) {
    fail(path, "engine uring: the kernel has no io_uring for this process (" +
                   std::generic_category().message(error) + "); use auto or threads");
  }
}

}  // namespace

DiskFile openDisk(const std::string& path, const DiskOpenOptions& options) {
  if (path.find('\0') != std::string::npos) {
    fail(path.substr(0, path.find('\0')), "the path contains a NUL character");
  }
  DiskFile file;
  file.path = path;
  file.readOnly = options.readOnly;
  file.engine = options.engine;
  // O_NONBLOCK: a FIFO is refused below, not waited for.
  file.fd.reset(open(path.c_str(), (options.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK));
  if (!file.fd) {
    fail(path, describe(errno, options.readOnly));
  }
  measure(file);
  // Later it would make io_uring answer EAGAIN instead of waiting.
  fcntl(file.fd.get(), F_SETFL, fcntl(file.fd.get(), F_GETFL) & ~O_NONBLOCK);
  if (options.engine == DiskEngine::kUring) {
    requireUring(path);
  }
  if (options.direct) {
    openDirect(file);
  }
  lock(file, path);
  return file;
}

DiskFile DiskFile::again() const {
  const auto duplicate = [this](const Fd& from) {
    Fd copy(fcntl(from.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy) {
      fail(path, std::generic_category().message(errno));
    }
    return copy;
  };
  DiskFile copy;
  copy.path = path;
  copy.fd = duplicate(fd);
  if (directFd) {
    copy.directFd = duplicate(directFd);
  }
  copy.alignment = alignment;
  copy.readOnly = readOnly;
  copy.locked = locked;
  copy.engine = engine;
  measure(copy);
  copy.blockSize = blockSize;
  return copy;
}

bool isOpenAs(const DiskFile& disk, const std::string& path) {
  struct stat open {};
  struct stat named {};
  return fstat(disk.fd.get(), &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino && S_ISBLK(open.st_mode) == S_ISBLK(named.st_mode);
}

}  // namespace tsvmm::virtio
