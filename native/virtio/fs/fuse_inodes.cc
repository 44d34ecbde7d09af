// Looking files up, and their attributes.

#include <fcntl.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

constexpr uint64_t kLong = 86'400;  // seconds

struct Timeouts {
  uint64_t entry;
  uint64_t attributes;
};
Timeouts timeoutsOf(Cache cache) {
  switch (cache) {
    case Cache::kAlways:
      return {kLong, kLong};
    case Cache::kAuto:
      return {1, 1};
    default:
      return {0, 0};
  }
}

/// A device number as FUSE carries it: 12 bits of major, 20 of minor.
uint32_t encodeDevice(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
}

timespec timeOf(bool set, bool now, uint64_t seconds, uint32_t nanoseconds) {
  if (!set) {
    return {0, UTIME_OMIT};
  }
  return now ? timespec{0, UTIME_NOW}
             : timespec{static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
}

}  // namespace

void FuseServer::fillAttributes(const struct statx& from, fuse_attr& to) const {
  to.ino = from.stx_ino;
  to.size = from.stx_size;
  to.blocks = from.stx_blocks;
  to.atime = static_cast<uint64_t>(from.stx_atime.tv_sec);
  to.mtime = static_cast<uint64_t>(from.stx_mtime.tv_sec);
  to.ctime = static_cast<uint64_t>(from.stx_ctime.tv_sec);
  to.atimensec = from.stx_atime.tv_nsec;
  to.mtimensec = from.stx_mtime.tv_nsec;
  to.ctimensec = from.stx_ctime.tv_nsec;
  to.mode = from.stx_mode;
  to.nlink = from.stx_nlink;
  to.uid = options_.uids.toGuest(from.stx_uid);
  to.gid = options_.gids.toGuest(from.stx_gid);
  to.rdev = encodeDevice(from.stx_rdev_major, from.stx_rdev_minor);
  to.blksize = from.stx_blksize;
  to.flags = 0;
}

void FuseServer::fillEntry(const Inode& inode, const struct statx& from, fuse_entry_out& entry) const {
  const Timeouts timeouts = timeoutsOf(options_.cache);
  entry = {};
  entry.nodeid = inode.nodeId;
  entry.entry_valid = timeouts.entry;
  entry.attr_valid = timeouts.attributes;
  fillAttributes(from, entry.attr);
  entry.attr.flags = inode.submount && submounts_ ? FUSE_ATTR_SUBMOUNT : 0;
}

int FuseServer::findEntry(const Inode& parent, int parentPath, const char* name, bool likelyKnown,
                          fuse_entry_out& entry) {
  if (likelyKnown) {  // Then it takes one system call.
    struct statx attributes;
    if (statx(parentPath, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kStatxMask, &attributes) != 0) {
      return errno;
    }
    if (Inode* known = inodes_.findHeld(InodeKey::of(attributes, parent.share()))) {
      known->lookups++;
      known->recent = true;
      fillEntry(*known, attributes, entry);
      return 0;
    }
  }
  // One component that is not followed if it is a symbolic link: it cannot lead out of the parent folder.
  Fd path(openat(parentPath, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct statx attributes;
  if (!path || statx(path.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) != 0) {
    return errno;
  }
  return enterEntry(parent, std::move(path), attributes, entry);
}

int FuseServer::enterEntry(const Inode& parent, Fd path, const struct statx& attributes,
                           fuse_entry_out& entry) {
  Inode* inode = inodes_.findOpened(path, InodeKey::of(attributes, parent.share()));
  if (inode == nullptr) {
    if (FdBudget::exhausted() || inodes_.size() >= maxInodes_) {
      return ENFILE;
    }
    const bool submount = S_ISDIR(attributes.stx_mode) && attributes.stx_mnt_id != parent.key.mount;
    inode = inodes_.add(std::move(path), attributes, parent.share(), submount);
  }
  inode->lookups++;
  fillEntry(*inode, attributes, entry);
  return 0;
}

int FuseServer::replyEntry(Request& request, const Inode& parent, int parentPath, const char* name) {
  fuse_entry_out entry;
  // Guests that ask again and again mostly ask for what they know.
  const int error = findEntry(parent, parentPath, name, options_.cache != Cache::kAlways, entry);
  return error != 0 ? error : request.reply(entry);
}

int FuseServer::lookup(Request& request) {
  const char* name;
  Inode* parent;
  int path;
  int error = request.takeName(name);
  if (error == 0) {
    error = resolveDirectory(request.header.nodeid, parent, path);
  }
  if (error == 0) {
    error = replyEntry(request, *parent, path, name);
  }
  if (error == ENOENT && options_.cache == Cache::kAlways) {
    // An entry without a node: the guest remembers that the name is absent.
    fuse_entry_out absent{};
    absent.entry_valid = kLong;
    return request.reply(absent);
  }
  return error;
}

int FuseServer::getattr(Request& request) {
  fuse_getattr_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  int fd = -1;
  if ((in.getattr_flags & FUSE_GETATTR_FH) != 0) {
    if (const auto& file = files_.find(in.fh, false)) {
      fd = file->fd.get();
    }
  }
  if (fd < 0) {
    Inode* inode;
    if (const int error = resolve(request.header.nodeid, inode, fd)) {
      return error;
    }
  }
  return replyAttributes(request, fd);
}

int FuseServer::replyAttributes(Request& request, int fd) {
  struct statx attributes;
  if (statx(fd, "", AT_EMPTY_PATH, kStatxMask, &attributes) != 0) {
    return errno;
  }
  fuse_attr_out out{};
  out.attr_valid = timeoutsOf(options_.cache).attributes;
  fillAttributes(attributes, out.attr);
  return request.reply(out);
}

int FuseServer::setattr(Request& request) {
  fuse_setattr_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  Inode* inode;
  int path;
  if (const int error = resolve(request.header.nodeid, inode, path)) {
    return error;
  }
  const OpenFile* file = nullptr;
  if ((in.valid & FATTR_FH) != 0) {
    file = files_.find(in.fh, false).get();
    if (file == nullptr || file->nodeId != inode->nodeId) {
      return EBADF;
    }
  }
  const int error = change(in, *inode, path, file);
  return error != 0 ? error : replyAttributes(request, path);
}

int FuseServer::change(const fuse_setattr_in& in, const Inode& inode, int path, const OpenFile* file) {
  // The owner first: changing it takes the set-user-ID bits away, and a mode given along with it must stay.
  if ((in.valid & (FATTR_UID | FATTR_GID)) != 0) {
    if (const int error = changeOwner(in, path)) {
      return error;
    }
  }
  if ((in.valid & FATTR_MODE) != 0) {
    if (inode.type == S_IFLNK) {
      return EOPNOTSUPP;
    }
    if (const int error = checkMapped(path)) {
      return error;
    }
    if (fchmodat(proc_.folder(), FdName(path).relative(), in.mode & 07777, 0) != 0) {
      return errno;
    }
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    if (!inode.isRegular()) {
      return inode.isDirectory() ? EISDIR : EINVAL;
    }
    if (in.size > LLONG_MAX) {
      return EFBIG;
    }
    const auto size = static_cast<off_t>(in.size);
    const bool own = file != nullptr && file->writable;
    if ((own ? ftruncate(file->fd.get(), size) : truncate(FdName(path).absolute(), size)) != 0) {
      return errno;
    }
  }
  if ((in.valid & FATTR_KILL_SUIDGID) != 0 && (in.valid & FATTR_MODE) == 0) {
    if (const int error = dropSetIds(path)) {
      return error;
    }
  }
  if ((in.valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
    const timespec times[2] = {
        timeOf((in.valid & FATTR_ATIME) != 0, (in.valid & FATTR_ATIME_NOW) != 0, in.atime, in.atimensec),
        timeOf((in.valid & FATTR_MTIME) != 0, (in.valid & FATTR_MTIME_NOW) != 0, in.mtime, in.mtimensec)};
    for (const timespec& time : times) {
      if (time.tv_nsec > 999'999'999 && time.tv_nsec != UTIME_NOW && time.tv_nsec != UTIME_OMIT) {
        return EINVAL;
      }
    }
    if (utimensat(path, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
      return errno;
    }
  }
  return 0;
}

int FuseServer::changeOwner(const fuse_setattr_in& in, int path) const {
  constexpr uint32_t kSame = UINT32_MAX;
  const auto uid = (in.valid & FATTR_UID) != 0 ? options_.uids.toHost(in.uid) : kSame;
  const auto gid = (in.valid & FATTR_GID) != 0 ? options_.gids.toHost(in.gid) : kSame;
  if (!uid || !gid) {
    return EINVAL;
  }
  if (const int error = checkMapped(path)) {
    return error;
  }
  return fchownat(path, "", *uid, *gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
}

int FuseServer::checkMapped(int path) const {
  if (options_.uids.identity() && options_.gids.identity()) {
    return 0;
  }
  struct stat attributes;
  if (fstat(path, &attributes) != 0) {
    return errno;
  }
  // The guest's root has no say over what does not belong to the guest, though the server may be able to.
  return options_.uids.hasHost(attributes.st_uid) && options_.gids.hasHost(attributes.st_gid) ? 0 : EPERM;
}

int FuseServer::dropSetIds(int fd, mode_t which) const {
  struct stat attributes;
  if (fstat(fd, &attributes) != 0) {
    return errno;
  }
  if ((attributes.st_mode & S_IXGRP) == 0) {
    // Without the group's right to execute, the bit means mandatory locking and stays.
    which &= ~static_cast<mode_t>(S_ISGID);
  }
  if (!S_ISREG(attributes.st_mode) || (attributes.st_mode & which) == 0) {
    return 0;
  }
  const mode_t mode = attributes.st_mode & 07777 & ~which;
  return fchmodat(proc_.folder(), FdName(fd).relative(), mode, 0) == 0 ? 0 : errno;
}

int FuseServer::readlink(Request& request) {
  Inode* inode;
  int path;
  if (const int error = resolve(request.header.nodeid, inode, path)) {
    return error;
  }
  if (inode->type != S_IFLNK) {
    return EINVAL;
  }
  const ssize_t length = readlinkat(path, "", output_.get(), PATH_MAX);
  return length < 0 ? errno : request.replyBytes(output_.get(), static_cast<size_t>(length));
}

int FuseServer::statfs(Request& request) {
  Inode* inode;
  int path;
  if (const int error = resolve(request.header.nodeid, inode, path)) {
    return error;
  }
  struct statfs info;
  if (fstatfs(path, &info) != 0) {
    return errno;
  }
  fuse_statfs_out out{};
  out.st.blocks = info.f_blocks;
  out.st.bfree = info.f_bfree;
  out.st.bavail = info.f_bavail;
  out.st.files = info.f_files;
  out.st.ffree = info.f_ffree;
  out.st.bsize = static_cast<uint32_t>(info.f_bsize);
  out.st.namelen = static_cast<uint32_t>(info.f_namelen);
  out.st.frsize = static_cast<uint32_t>(info.f_frsize);
  return request.reply(out);
}

int FuseServer::access(Request& request) {
  fuse_access_in in;
  if (!request.take(in) || (in.mask & ~static_cast<uint32_t>(R_OK | W_OK | X_OK)) != 0) {
    return EINVAL;
  }
  Inode* inode;
  int path;
  if (const int error = resolve(request.header.nodeid, inode, path)) {
    return error;
  }
  struct stat attributes;
  if (fstat(path, &attributes) != 0) {
    return errno;
  }
  if (readOnly(inode->share()) && (in.mask & W_OK) != 0 &&
      (S_ISREG(attributes.st_mode) || S_ISDIR(attributes.st_mode))) {
    return EROFS;
  }
  uint32_t granted;
  if (request.header.uid == 0) {
    const bool executable = S_ISDIR(attributes.st_mode) || (attributes.st_mode & 0111) != 0;
    granted = R_OK | W_OK | (executable ? X_OK : 0);
  } else if (options_.uids.toHost(request.header.uid) == attributes.st_uid) {
    granted = attributes.st_mode >> 6;
  } else if (options_.gids.toHost(request.header.gid) == attributes.st_gid) {
    granted = attributes.st_mode >> 3;
  } else {
    granted = attributes.st_mode;
  }
  return (in.mask & ~granted) == 0 ? 0 : EACCES;
}

int FuseServer::syncfs(Request& request) {
  Inode* inode;
  int path;
  if (const int error = resolveDirectory(request.header.nodeid, inode, path)) {
    return error;
  }
  const int fd = proc_.reopen(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) {
    return errno;
  }
  auto folder = std::make_shared<Fd>(fd);
  return defer(request, [folder] { return WorkResult{.error = ::syncfs(folder->get()) == 0 ? 0 : errno}; });
}

}  // namespace tsvmm::virtio::fs
