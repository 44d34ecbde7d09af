#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

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

}  // namespace

DiskFile openDisk(const std::string& path, bool readOnly) {
  if (path.find('\0') != std::string::npos) {
    fail(path.substr(0, path.find('\0')), "the path contains a NUL character");
  }
  DiskFile file;
  file.readOnly = readOnly;
  // O_NONBLOCK: a FIFO is refused below, not waited for.
  file.fd.reset(open(path.c_str(), (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK));
  if (!file.fd) {
    fail(path, describe(errno, readOnly));
  }
  struct stat status {};
  if (fstat(file.fd.get(), &status) != 0) {
    fail(path, describe(errno, readOnly));
  }
  if (S_ISBLK(status.st_mode)) {
    file.blockDevice = true;
    int blockSize = 0;
    if (ioctl(file.fd.get(), BLKGETSIZE64, &file.size) != 0 ||
        ioctl(file.fd.get(), BLKSSZGET, &blockSize) != 0) {
      fail(path, "cannot ask the block device for its size: " + std::generic_category().message(errno));
    }
    file.blockSize = static_cast<uint32_t>(blockSize);
  } else if (S_ISREG(status.st_mode)) {
    file.size = static_cast<uint64_t>(status.st_size);
    struct statfs system {};
    file.inMemory = fstatfs(file.fd.get(), &system) == 0 &&
                    (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
  } else {
    fail(path, S_ISDIR(status.st_mode) ? describe(EISDIR, readOnly) : "is neither a file nor a block device");
  }
  if (file.size == 0) {
    fail(path, "is empty");
  }
  if (!readOnly && file.size % 512 != 0) {
    fail(path, "its " + std::to_string(file.size) +
                   " bytes are not a whole number of 512-byte sectors; enlarge it (truncate -s %512) or open "
                   "it read-only (ro)");
  }
  lock(file, path);
  return file;
}

}  // namespace tsvmm::virtio
