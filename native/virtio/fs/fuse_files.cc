// Open files.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {

int FuseServer::hostFlags(uint32_t guestFlags) const {
  // O_APPEND is kept out (write() gives it with each request), as is O_DIRECT: the guest's buffers are
  // aligned to nothing.
  int flags = static_cast<int>(guestFlags) & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC);
  if (privileged_) {
    flags |= static_cast<int>(guestFlags) & O_NOATIME;
  }
  if ((flags & O_ACCMODE) == O_ACCMODE) {
    flags = (flags & ~O_ACCMODE) | O_RDWR;
  }
  if (options_.writeback && (flags & O_ACCMODE) == O_WRONLY) {
    flags = (flags & ~O_ACCMODE) | O_RDWR;  // To write a part of a page, the guest reads the page.
  }
  return flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

int FuseServer::openNode(uint64_t nodeId, uint32_t guestFlags, bool killSetIds,
                         std::shared_ptr<OpenFile>& file, uint32_t& openFlags) {
  Inode* inode;
  int path;
  if (const int error = resolve(nodeId, inode, path)) {
    return error;
  }
  if (!inode->isRegular()) {
    // Pipes, sockets and devices are opened by the guest's kernel as its own; on the host they never are.
    return inode->isDirectory() ? EISDIR : inode->type == S_IFLNK ? ELOOP : ENXIO;
  }
  int flags = hostFlags(guestFlags);
  if (readOnly(inode->share()) && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0)) {
    return EROFS;
  }
  if (FdBudget::exhausted()) {
    return ENFILE;
  }
  int fd = proc_.reopen(path, flags);
  if (fd < 0 && errno == EACCES && options_.writeback && (guestFlags & O_ACCMODE) == O_WRONLY) {
    fd = proc_.reopen(path, (flags & ~O_ACCMODE) | O_WRONLY);
  }
  if (fd < 0) {
    return errno;
  }
  file = std::make_shared<OpenFile>();
  file->fd = CountedFd(Fd(fd));
  file->nodeId = nodeId;
  file->writable = (flags & O_ACCMODE) != O_RDONLY;
  file->synchronous = (flags & (O_SYNC | O_DSYNC)) != 0;
  file->host = &hostFileSystem(*inode, fd);
  if (killSetIds && (flags & O_TRUNC) != 0) {
    if (const int error = dropSetIds(fd)) {
      return error;
    }
  }
  struct stat now;
  openFlags = options_.cache == Cache::kAuto && fstat(fd, &now) != 0 ? 0 : keepCache(*inode, now);
  return 0;
}

uint32_t FuseServer::keepCache(Inode& inode, const struct stat& now) const {
  if (options_.cache == Cache::kAlways) {
    return FOPEN_KEEP_CACHE;
  }
  if (options_.cache == Cache::kNone) {
    return 0;
  }
  const int64_t mtime = now.st_mtim.tv_sec * 1'000'000'000 + now.st_mtim.tv_nsec;
  const bool same = inode.seenMtime == mtime && inode.seenSize == static_cast<uint64_t>(now.st_size);
  inode.seenMtime = mtime;
  inode.seenSize = static_cast<uint64_t>(now.st_size);
  return same ? FOPEN_KEEP_CACHE : 0;
}

int FuseServer::replyOpened(Request& request, std::shared_ptr<OpenFile> file, uint32_t openFlags) {
  const bool directory = file->directory;
  const fuse_open_out out{files_.add(std::move(file)), openFlags, 0};
  const int error = request.reply(out);
  if (error != 0) {
    files_.remove(out.fh, directory);
  }
  return error;
}

int FuseServer::open(Request& request) {
  fuse_open_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  std::shared_ptr<OpenFile> file;
  uint32_t openFlags = 0;
  const bool kill = (in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
  const int error = openNode(request.header.nodeid, in.flags, kill, file, openFlags);
  return error != 0 ? error : replyOpened(request, std::move(file), openFlags);
}

int FuseServer::release(Request& request) {
  fuse_release_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  if (options_.hostLocks && (in.release_flags & FUSE_RELEASE_FLUSH) != 0) {
    locks_.dropOwner(file->nodeId, in.lock_owner);
  }
  files_.remove(in.fh, false);
  retryLocks();
  return 0;
}

int FuseServer::flush(Request& request) {
  fuse_flush_in in;
  if (!flushes_) {
    return ENOSYS;  // The guest never asks again.
  }
  if (!request.take(in)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  locks_.dropOwner(file->nodeId, in.lock_owner);
  retryLocks();
  return defer(request, [file] {
    // Closing any descriptor of the file makes a network file system send what is left and tell how that
    // went.
    const int copy = fcntl(file->fd.get(), F_DUPFD_CLOEXEC, 0);
    return WorkResult{.error = copy >= 0 && close(copy) == 0 ? 0 : errno};
  });
}

}  // namespace tsvmm::virtio::fs
