// Open files.

#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

/// Moves bytes between a file and memory, as many system calls as it takes. Returns the bytes moved, or
/// -errno if there were none.
template <typename Move>
int64_t moveAll(std::span<iovec> pieces, uint64_t offset, Move&& move) {
  int64_t done = 0;
  while (!pieces.empty()) {
    const auto some = pieces.first(std::min<size_t>(pieces.size(), IOV_MAX));
    int64_t wanted = 0;
    for (const iovec& piece : some) {
      wanted += static_cast<int64_t>(piece.iov_len);
    }
    const ssize_t moved = move(some.data(), static_cast<int>(some.size()), static_cast<off_t>(offset) + done);
    if (moved < 0) {
      if (errno == EINTR) {
        continue;
      }
      return done != 0 ? done : -errno;
    }
    done += moved;
    if (moved < wanted) {
      break;
    }
    pieces = pieces.subspan(some.size());
  }
  return done;
}

bool validRange(uint64_t offset, uint64_t length) {
  return offset <= LLONG_MAX && length <= static_cast<uint64_t>(LLONG_MAX) - offset;
}

}  // namespace

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
  if (killSetIds && (flags & O_TRUNC) != 0) {
    if (const int error = dropSetIds(fd)) {
      return error;
    }
  }
  openFlags = keepCache(*inode, fd);
  return 0;
}

uint32_t FuseServer::keepCache(Inode& inode, int fd) const {
  if (options_.cache == Cache::kAlways) {
    return FOPEN_KEEP_CACHE;
  }
  if (options_.cache == Cache::kNone) {
    return 0;
  }
  struct stat now;
  if (fstat(fd, &now) != 0) {
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

int FuseServer::read(Request& request) {
  fuse_read_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  const uint64_t size = std::min({uint64_t{in.size}, uint64_t{kMaxWrite}, request.out.left()});
  if (!validRange(in.offset, size)) {
    return EINVAL;
  }
  const int fd = file->fd.get();
  const int64_t done =
      moveAll(request.out.rest(size), in.offset,
              [fd](const iovec* pieces, int count, off_t at) { return preadv(fd, pieces, count, at); });
  if (done < 0) {
    return static_cast<int>(-done);
  }
  request.addPayload(static_cast<uint32_t>(done));
  bytesRead_ += static_cast<uint64_t>(done);
  return 0;
}

int FuseServer::write(Request& request) {
  fuse_write_in in;
  if (!request.take(in) || in.size > kMaxWrite || in.size > request.in.left() ||
      !validRange(in.offset, in.size)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  const int fd = file->fd.get();
  if ((in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0) {
    if (const int error = dropSetIds(fd)) {
      return error;
    }
  }
  // Pages written back go where they belong, through whichever open file the guest finds; only a program's
  // own write appends. With a write-back cache the guest alone knows where the end is.
  const bool append =
      (in.flags & O_APPEND) != 0 && (in.write_flags & FUSE_WRITE_CACHE) == 0 && !options_.writeback;
  const int flags = append ? RWF_APPEND : 0;
  const int64_t done =
      moveAll(request.in.rest(in.size), in.offset, [fd, flags](const iovec* pieces, int count, off_t at) {
        return pwritev2(fd, pieces, count, at, flags);
      });
  if (done < 0) {
    return static_cast<int>(-done);
  }
  bytesWritten_ += static_cast<uint64_t>(done);
  return request.reply(fuse_write_out{static_cast<uint32_t>(done), 0});
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

int FuseServer::fsync(Request& request) {
  fuse_fsync_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  const bool dataOnly = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  return defer(request, [file, dataOnly] {
    const int fd = file->fd.get();
    return WorkResult{.error = (dataOnly ? fdatasync(fd) : ::fsync(fd)) == 0 ? 0 : errno};
  });
}

int FuseServer::fallocate(Request& request) {
  fuse_fallocate_in in;
  if (!request.take(in) || !validRange(in.offset, in.length) || in.length == 0) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  return defer(request, [file, in] {
    const int result = ::fallocate(file->fd.get(), static_cast<int>(in.mode), static_cast<off_t>(in.offset),
                                   static_cast<off_t>(in.length));
    return WorkResult{.error = result == 0 ? 0 : errno};
  });
}

int FuseServer::lseek(Request& request) {
  fuse_lseek_in in;
  if (!request.take(in) || in.offset > LLONG_MAX || (in.whence != SEEK_DATA && in.whence != SEEK_HOLE)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  // Moves the descriptor's position, which nothing else here uses.
  const off_t found = ::lseek(file->fd.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  return found < 0 ? errno : request.reply(fuse_lseek_out{static_cast<uint64_t>(found)});
}

int FuseServer::copyFileRange(Request& request) {
  // A short count is the guest's to continue, so that no request keeps a worker for long.
  constexpr uint64_t kMaxCopy = 64 << 20;
  fuse_copy_file_range_in in;
  if (options_.readOnly) {
    return EROFS;
  }
  if (!request.take(in) || in.flags != 0) {
    return EINVAL;
  }
  if (readOnlyNode(in.nodeid_out)) {
    return EROFS;
  }
  in.len = std::min(in.len, kMaxCopy);
  if (!validRange(in.off_in, in.len) || !validRange(in.off_out, in.len)) {
    return EINVAL;
  }
  const auto& from = files_.find(in.fh_in, false);
  const auto& to = files_.find(in.fh_out, false);
  if (!from || !to) {
    return EBADF;
  }
  return defer(request, [from, to, in] {
    auto fromOffset = static_cast<off_t>(in.off_in);
    auto toOffset = static_cast<off_t>(in.off_out);
    const ssize_t copied = copy_file_range(from->fd.get(), &fromOffset, to->fd.get(), &toOffset, in.len, 0);
    WorkResult result{.error = copied < 0 ? errno : 0};
    if (copied >= 0) {
      const fuse_write_out out{static_cast<uint32_t>(copied), 0};
      result.payloadSize = sizeof out;
      std::memcpy(result.payload.data(), &out, sizeof out);
    }
    return result;
  });
}

}  // namespace tsvmm::virtio::fs
