// Reading folders.

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstring>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

/// What getdents64(2) yields.
struct Entry {
  uint64_t inode;
  int64_t next;
  uint16_t length;
  uint8_t type;
  char name[];
};

constexpr size_t kLongestEntry = offsetof(Entry, name) + NAME_MAX + 1 + 8;

bool isDots(const char* name) {
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

}  // namespace

int FuseServer::opendir(Request& request) {
  fuse_open_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  Inode* inode;
  int path;
  if (const int error = resolveDirectory(request.header.nodeid, inode, path)) {
    return error;
  }
  if (FdBudget::exhausted()) {
    return ENFILE;
  }
  const int fd = proc_.reopen(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) {
    return errno;
  }
  auto folder = std::make_shared<OpenFile>();
  folder->fd = CountedFd(Fd(fd));
  folder->nodeId = inode->nodeId;
  folder->directory = true;
  const uint32_t openFlags = options_.cache == Cache::kAlways ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0;
  return replyOpened(request, std::move(folder), openFlags);
}

int FuseServer::readdir(Request& request) { return listDirectory(request, false); }
int FuseServer::readdirplus(Request& request) { return listDirectory(request, true); }

int FuseServer::listDirectory(Request& request, bool plus) {
  fuse_read_in in;
  if (!request.take(in) || in.offset > LLONG_MAX) {
    return EINVAL;
  }
  const auto& folder = files_.find(in.fh, true);
  if (!folder) {
    return EBADF;
  }
  const int fd = folder->fd.get();
  if (in.offset != folder->position && lseek64(fd, static_cast<off64_t>(in.offset), SEEK_SET) < 0) {
    return errno;
  }
  folder->position = in.offset;
  const size_t room = std::min({size_t{in.size}, static_cast<size_t>(request.out.left()), kOutputSize});
  const size_t header = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
  // Not more than certainly fits, so that the descriptor need not go back: the host's record of a one-letter
  // name takes 24 bytes, the guest's at most (header + 8).
  alignas(8) char entries[16 * 1024];
  const size_t want = std::clamp(room * 24 / (header + 8), kLongestEntry, sizeof entries);
  const long got = syscall(SYS_getdents64, fd, entries, want);
  if (got < 0) {
    return errno;
  }
  Inode* parent = nullptr;
  int parentPath = -1;
  if (plus) {
    if (const int error = resolveDirectory(folder->nodeId, parent, parentPath)) {
      return error;
    }
  }
  size_t used = 0;
  uint64_t position = in.offset;
  for (long at = 0; at < got;) {
    const auto* entry = reinterpret_cast<const Entry*>(entries + at);
    const size_t nameLength = std::strlen(entry->name);
    const size_t size = FUSE_DIRENT_ALIGN(header + nameLength);
    if (size > room - used) {
      break;
    }
    fuse_direntplus record{};
    record.dirent = {entry->inode, static_cast<uint64_t>(entry->next), static_cast<uint32_t>(nameLength),
                     entry->type};
    // Without a node the guest only takes the name: the file is gone already, or there is no room to hold it.
    const bool lookUp = plus && !isDots(entry->name);
    const bool known =
        lookUp && inodes_.knows({parent->key.device, entry->inode, parent->key.mount, parent->key.share});
    if (lookUp && findEntry(*parent, parentPath, entry->name, known, record.entry_out) == 0) {
      record.dirent.ino = record.entry_out.attr.ino;
      record.dirent.type = (record.entry_out.attr.mode & S_IFMT) >> 12;
    }
    char* to = output_.get() + used;
    std::memset(to + size - 8, 0, 8);
    if (plus) {
      std::memcpy(to, &record, FUSE_NAME_OFFSET_DIRENTPLUS);
    } else {
      std::memcpy(to, &record.dirent, FUSE_NAME_OFFSET);
    }
    std::memcpy(to + header, entry->name, nameLength);
    used += size;
    position = static_cast<uint64_t>(entry->next);
    at += entry->length;
    folder->position = at < got ? kUnknownPosition : position;
  }
  if (got > 0 && used == 0) {
    folder->position = kUnknownPosition;
    return EINVAL;
  }
  return request.replyBytes(output_.get(), used);
}

int FuseServer::releasedir(Request& request) {
  fuse_release_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  return files_.remove(in.fh, true) ? 0 : EBADF;
}

int FuseServer::fsyncdir(Request& request) {
  fuse_fsync_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  const auto& folder = files_.find(in.fh, true);
  if (!folder) {
    return EBADF;
  }
  const bool dataOnly = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  return defer(request, [folder, dataOnly] {
    const int fd = folder->fd.get();
    return WorkResult{.error = (dataOnly ? fdatasync(fd) : ::fsync(fd)) == 0 ? 0 : errno};
  });
}

}  // namespace tsvmm::virtio::fs
