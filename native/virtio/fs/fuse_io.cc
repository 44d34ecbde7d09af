// Bytes of open files: between the file and the guest's memory, without a copy. What may wait for a disk goes
// to a worker.

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

/// Buffered writes up to this size only dirty pages, which is quicker than handing them to a worker.
constexpr uint64_t kSmallWrite = 64 << 10;

struct Moved {
  uint64_t bytes = 0;
  int error = 0;  ///< why there were not more; 0 at the end of the file
};

void skip(std::span<iovec>& pieces, size_t length) {
  while (!pieces.empty() && length >= pieces.front().iov_len) {
    length -= pieces.front().iov_len;
    pieces = pieces.subspan(1);
  }
  if (length > 0) {
    pieces.front() = {static_cast<char*>(pieces.front().iov_base) + length, pieces.front().iov_len - length};
  }
}

/// Moves bytes between a file and memory until all are, the file ends, or there is an error. `pieces` becomes
/// what is left.
template <typename Move>
Moved moveAll(std::span<iovec>& pieces, uint64_t offset, Move&& move) {
  Moved moved;
  while (!pieces.empty()) {
    const int count = static_cast<int>(std::min<size_t>(pieces.size(), IOV_MAX));
    const ssize_t some = move(pieces.data(), count, static_cast<off_t>(offset + moved.bytes));
    if (some < 0 && errno == EINTR) {
      continue;
    }
    if (some <= 0) {
      moved.error = some < 0 ? errno : 0;
      break;
    }
    moved.bytes += static_cast<uint64_t>(some);
    skip(pieces, static_cast<size_t>(some));
  }
  return moved;
}

bool wouldBlock(int error) { return error == EAGAIN || error == EOPNOTSUPP; }

bool validRange(uint64_t offset, uint64_t length) {
  return offset <= LLONG_MAX && length <= static_cast<uint64_t>(LLONG_MAX) - offset;
}

}  // namespace

HostFileSystem& FuseServer::hostFileSystem(const Inode& inode, int fd) {
  const auto [entry, added] = hostFileSystems_.try_emplace(inode.key.device);
  struct statfs info;
  if (added && fstatfs(fd, &info) == 0) {
    entry->second.inMemory = info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC;
  }
  return entry->second;
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
  const auto readWith = [&file](int flags) {
    return [fd = file->fd.get(), flags](const iovec* pieces, int count, off_t at) {
      return preadv2(fd, pieces, count, at, flags);
    };
  };
  HostFileSystem& host = *file->host;
  std::span<iovec> pieces = request.out.rest(size);
  Moved now{.error = EOPNOTSUPP};
  if (host.inMemory || host.readsNow) {
    now = moveAll(pieces, in.offset, readWith(host.inMemory ? 0 : RWF_NOWAIT));
  }
  if (now.error == 0) {
    request.addPayload(static_cast<uint32_t>(now.bytes));
    bytesRead_ += now.bytes;
    return 0;
  }
  // Where something is wrong half-way, the whole is an error: the guest takes a short answer for the file's
  // end.
  if (!wouldBlock(now.error) || host.inMemory) {
    return now.error;
  }
  host.readsNow = host.readsNow && now.error != EOPNOTSUPP;
  return defer(request, [file, now, offset = in.offset + now.bytes, readBlocking = readWith(0),
                         rest = std::vector<iovec>(pieces.begin(), pieces.end())]() mutable {
    std::span<iovec> left(rest);
    const Moved later = moveAll(left, offset, readBlocking);
    const auto bytes = static_cast<uint32_t>(now.bytes + later.bytes);
    return WorkResult{.error = later.error, .inPlace = bytes, .bytesRead = bytes};
  });
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
  if ((in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0) {
    if (const int error = dropSetIds(file->fd.get())) {
      return error;
    }
  }
  // Pages written back go where they belong, through whichever open file the guest finds; only a program's
  // own write appends. With a write-back cache the guest alone knows where the end is.
  const bool append =
      (in.flags & O_APPEND) != 0 && (in.write_flags & FUSE_WRITE_CACHE) == 0 && !options_.writeback;
  const auto writeWith = [&file, append](int flags) {
    return [fd = file->fd.get(), flags = flags | (append ? RWF_APPEND : 0)](
               const iovec* pieces, int count, off_t at) { return pwritev2(fd, pieces, count, at, flags); };
  };
  HostFileSystem& host = *file->host;
  std::span<iovec> pieces = request.in.rest(in.size);
  const bool atOnce = host.inMemory || (in.size <= kSmallWrite && !file->synchronous);
  Moved now{.error = EOPNOTSUPP};
  if (atOnce || (host.writesNow && !file->synchronous)) {
    now = moveAll(pieces, in.offset, writeWith(atOnce ? 0 : RWF_NOWAIT));
  }
  if (!atOnce && wouldBlock(now.error)) {
    host.writesNow = host.writesNow && (now.error != EOPNOTSUPP || file->synchronous);
    return defer(request, [file, now, offset = in.offset + now.bytes, writeBlocking = writeWith(0),
                           rest = std::vector<iovec>(pieces.begin(), pieces.end())]() mutable {
      std::span<iovec> left(rest);
      const Moved later = moveAll(left, offset, writeBlocking);
      const auto bytes = static_cast<uint32_t>(now.bytes + later.bytes);
      WorkResult result{.error = bytes == 0 ? later.error : 0, .bytesWritten = bytes};
      result.reply(fuse_write_out{bytes, 0});
      return result;
    });
  }
  // What was written counts: the guest comes again with the rest and is told the error then.
  if (now.bytes == 0 && now.error != 0) {
    return now.error;
  }
  bytesWritten_ += now.bytes;
  return request.reply(fuse_write_out{static_cast<uint32_t>(now.bytes), 0});
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
  // Nothing in the request tells whether the requester has CAP_FSETID: root has.
  if (request.header.uid != 0 && file->writable) {
    if (const int error = dropSetIds(file->fd.get())) {
      return error;
    }
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
    result.reply(fuse_write_out{static_cast<uint32_t>(copied), 0});
    return result;
  });
}

}  // namespace tsvmm::virtio::fs
