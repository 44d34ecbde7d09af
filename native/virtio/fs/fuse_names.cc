// What changes folders: creating, linking, removing, renaming.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "virtio/fs/credentials.h"
#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

dev_t decodeDevice(uint32_t device) {
  return makedev((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00));
}

}  // namespace

template <typename Create>
int FuseServer::asRequester(const Request& request, mode_t umask, Create&& create) const {
  const auto uid = options_.uids.toHost(request.header.uid);
  const auto gid = options_.gids.toHost(request.header.gid);
  if (!uid || !gid) {
    errno = EOVERFLOW;  // As for who has no id in a file system's user namespace.
    return -1;
  }
  const bool mapped = !options_.uids.identity() || !options_.gids.identity();
  const ActAs requester(*uid, *gid, umask, mapped);
  if (requester.error() != 0) {
    errno = requester.error();
    return -1;
  }
  return create();
}

template <typename Make>
int FuseServer::make(Request& request, mode_t umask, const char* name, Make&& create) {
  Inode* parent;
  int path;
  if (const int error = resolveDirectory(request.header.nodeid, parent, path)) {
    return error;
  }
  if (FdBudget::exhausted()) {
    return ENFILE;  // Before anything is created that could not be told of.
  }
  if (asRequester(request, umask, [&] { return create(path); }) != 0) {
    return errno;
  }
  return replyEntry(request, *parent, path, name);
}

int FuseServer::mknod(Request& request) {
  fuse_mknod_in in;
  const char* name;
  if (!request.take(in)) {
    return EINVAL;
  }
  if (const int error = request.takeName(name)) {
    return error;
  }
  return make(request, in.umask & 0777, name, [&](int parent) {
    return mknodat(parent, name, in.mode & (S_IFMT | 07777), decodeDevice(in.rdev));
  });
}

int FuseServer::mkdir(Request& request) {
  fuse_mkdir_in in;
  const char* name;
  if (!request.take(in)) {
    return EINVAL;
  }
  if (const int error = request.takeName(name)) {
    return error;
  }
  return make(request, in.umask & 0777, name,
              [&](int parent) { return mkdirat(parent, name, in.mode & 07777); });
}

int FuseServer::symlink(Request& request) {
  const char* name;
  const char* target;
  int error = request.takeName(name);
  if (error == 0) {
    error = request.takeString(target);
  }
  if (error != 0) {
    return error;
  }
  return make(request, 0, name, [&](int parent) { return symlinkat(target, parent, name); });
}

int FuseServer::link(Request& request) {
  fuse_link_in in;
  const char* name;
  if (!request.take(in)) {
    return EINVAL;
  }
  Inode* inode;
  Inode* parent;
  int path;
  int parentPath;
  int error = request.takeName(name);
  if (error == 0) {
    error = resolve(in.oldnodeid, inode, path);
  }
  if (error == 0) {
    error = resolveDirectory(request.header.nodeid, parent, parentPath);
  }
  if (error != 0) {
    return error;
  }
  if (inode->share() != parent->share()) {
    return EXDEV;
  }
  // The magic link leads to the file itself, be it a symbolic link; that one is not followed further.
  if (linkat(proc_.folder(), FdName(path).relative(), parentPath, name, AT_SYMLINK_FOLLOW) != 0) {
    return errno;
  }
  return replyEntry(request, *parent, parentPath, name);
}

int FuseServer::unlink(Request& request) {
  const char* name;
  Inode* parent;
  int path;
  int error = request.takeName(name);
  if (error == 0) {
    error = resolveDirectory(request.header.nodeid, parent, path);
  }
  return error != 0 ? error : unlinkat(path, name, 0) == 0 ? 0 : errno;
}

int FuseServer::rmdir(Request& request) {
  const char* name;
  Inode* parent;
  int path;
  int error = request.takeName(name);
  if (error == 0) {
    error = resolveDirectory(request.header.nodeid, parent, path);
  }
  return error != 0 ? error : unlinkat(path, name, AT_REMOVEDIR) == 0 ? 0 : errno;
}

int FuseServer::rename(Request& request) {
  fuse_rename_in in;
  return request.take(in) ? renameTo(request, in.newdir, 0) : EINVAL;
}

int FuseServer::rename2(Request& request) {
  fuse_rename2_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  constexpr uint32_t kKnown = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
  return (in.flags & ~kKnown) != 0 ? EINVAL : renameTo(request, in.newdir, in.flags);
}

int FuseServer::renameTo(Request& request, uint64_t toNode, uint32_t flags) {
  const char* fromName;
  const char* toName;
  Inode* from;
  Inode* to;
  int fromPath;
  int toPath;
  int error = request.takeName(fromName);
  if (error == 0) {
    error = request.takeName(toName);
  }
  if (error == 0) {
    error = resolveDirectory(request.header.nodeid, from, fromPath);
  }
  if (error == 0) {
    error = resolveDirectory(toNode, to, toPath);
  }
  if (error != 0) {
    return error;
  }
  if (from->share() != to->share()) {
    return EXDEV;
  }
  return renameat2(fromPath, fromName, toPath, toName, flags) == 0 ? 0 : errno;
}

int FuseServer::create(Request& request) {
  fuse_create_in in;
  const char* name;
  Inode* parent;
  int parentPath;
  if (!request.take(in)) {
    return EINVAL;
  }
  int error = request.takeName(name);
  if (error == 0) {
    error = resolveDirectory(request.header.nodeid, parent, parentPath);
  }
  if (error != 0) {
    return error;
  }
  const int flags = hostFlags(in.flags);
  // Somebody on the host may create and remove the name meanwhile.
  for (int attempt = 0; attempt < 4; attempt++) {
    if (FdBudget::exhausted()) {
      return ENFILE;
    }
    // Always exclusively: what is there already could be a pipe or a device, which must not be opened
    // unseen.
    Fd fd(asRequester(request, in.umask & 0777, [&] {
      return openat(parentPath, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW, in.mode & 07777);
    }));
    if (fd) {
      return replyCreated(request, *parent, Fd(openat(parentPath, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)),
                          std::move(fd), flags);
    }
    const int refused = errno;
    // Who may make nothing here may still open what there is.
    const bool stranger = refused == EOVERFLOW || refused == EPERM;
    if ((refused != EEXIST && !stranger) || (in.flags & O_EXCL) != 0) {
      return refused;
    }
    fuse_entry_out entry;
    error = findEntry(*parent, parentPath, name, true, entry);
    if (error == ENOENT && stranger) {
      return refused;
    }
    if (error == ENOENT) {
      continue;
    }
    if (error != 0) {
      return error;
    }
    std::shared_ptr<OpenFile> file;
    uint32_t openFlags = 0;
    error = openNode(entry.nodeid, in.flags, (in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0, file, openFlags);
    if (error == 0 && (flags & O_TRUNC) != 0) {
      struct statx attributes;
      if (statx(file->fd.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) == 0) {
        fillAttributes(attributes, entry.attr);
      }
    }
    if (error == 0) {
      error = request.reply(entry);
    }
    if (error != 0) {
      inodes_.forget(entry.nodeid, 1);
      return error;
    }
    return replyOpened(request, std::move(file), openFlags);
  }
  return EEXIST;
}

int FuseServer::tmpfile(Request& request) {
  fuse_create_in in;
  Inode* parent;
  int parentPath;
  if (!request.take(in)) {
    return EINVAL;
  }
  if (const int error = resolveDirectory(request.header.nodeid, parent, parentPath)) {
    return error;
  }
  if (FdBudget::exhausted()) {
    return ENFILE;
  }
  // Without O_EXCL, which would forbid to give it a name later; the guest's kernel sees to that.
  const int flags = hostFlags(in.flags) & ~O_TRUNC;
  Fd fd(asRequester(request, in.umask & 0777,
                    [&] { return openat(parentPath, ".", flags | O_TMPFILE, in.mode & 07777); }));
  return fd ? replyCreated(request, *parent, Fd(), std::move(fd), flags) : errno;
}

int FuseServer::replyCreated(Request& request, const Inode& parent, Fd path, Fd fd, int flags) {
  struct statx attributes;
  struct stat created;
  if (fstat(fd.get(), &created) != 0) {
    return errno;
  }
  const auto isCreated = [&] {
    return path && statx(path.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) == 0 &&
           attributes.stx_ino == created.st_ino &&
           makedev(attributes.stx_dev_major, attributes.stx_dev_minor) == created.st_dev;
  };
  // The name may be another file's already: then by the descriptor, which takes longer.
  if (!isCreated()) {
    path.reset(proc_.reopen(fd.get(), O_PATH));
    if (!isCreated()) {
      return path ? EIO : errno;
    }
  }
  fuse_entry_out entry;
  int error = enterEntry(parent, std::move(path), attributes, entry);
  if (error == 0) {
    error = request.reply(entry);
  }
  if (error != 0) {
    return error;
  }
  auto file = std::make_shared<OpenFile>();
  file->fd = CountedFd(std::move(fd));
  file->nodeId = entry.nodeid;
  file->writable = (flags & O_ACCMODE) != O_RDONLY;
  file->synchronous = (flags & (O_SYNC | O_DSYNC)) != 0;
  Inode* inode = inodes_.find(entry.nodeid);
  file->host = &hostFileSystem(*inode, file->fd.get());
  const uint32_t openFlags = keepCache(*inode, created);
  return replyOpened(request, std::move(file), openFlags);
}

}  // namespace tsvmm::virtio::fs
