// Extended attributes. They are reached by path through the magic link, because an O_PATH descriptor gives
// none.

#include <sys/xattr.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {

int FuseServer::takeXattrName(Request& request, const char*& name) const {
  if (const int error = request.takeString(name)) {
    return error == ENAMETOOLONG ? ERANGE : error;
  }
  if (std::strlen(name) > XATTR_NAME_MAX) {
    return ERANGE;
  }
  // A list that is stored but not enforced by the guest's kernel would be a false promise.
  if (!options_.posixAcl && std::strncmp(name, "system.posix_acl_", 17) == 0) {
    return EOPNOTSUPP;
  }
  return 0;
}

int FuseServer::getxattr(Request& request) {
  fuse_getxattr_in in;
  const char* name;
  Inode* inode;
  int path;
  if (!request.take(in)) {
    return EINVAL;
  }
  int error = takeXattrName(request, name);
  if (error == 0) {
    error = resolve(request.header.nodeid, inode, path);
  }
  if (error != 0) {
    return error;
  }
  // Before each first write Linux asks for the file's capabilities: by the open file that takes a quarter of
  // the time.
  const int open = files_.openedOf(inode->nodeId);
  const ssize_t length = open >= 0 ? ::fgetxattr(open, name, output_.get(), kOutputSize)
                                   : ::getxattr(FdName(path).absolute(), name, output_.get(), kOutputSize);
  return replyXattr(request, in.size, length);
}

int FuseServer::listxattr(Request& request) {
  fuse_getxattr_in in;
  Inode* inode;
  int path;
  if (!request.take(in)) {
    return EINVAL;
  }
  if (const int error = resolve(request.header.nodeid, inode, path)) {
    return error;
  }
  return replyXattr(request, in.size, ::listxattr(FdName(path).absolute(), output_.get(), kOutputSize));
}

int FuseServer::replyXattr(Request& request, uint32_t size, ssize_t length) {
  if (length < 0) {
    return errno;
  }
  if (size == 0) {
    return request.reply(fuse_getxattr_out{static_cast<uint32_t>(length), 0});
  }
  if (static_cast<size_t>(length) > size) {
    return ERANGE;
  }
  return request.replyBytes(output_.get(), static_cast<size_t>(length));
}

int FuseServer::setxattr(Request& request) {
  fuse_setxattr_in in{};
  const char* name;
  Inode* inode;
  int path;
  if (!request.in.read(&in, extendedSetxattr_ ? sizeof in : FUSE_COMPAT_SETXATTR_IN_SIZE)) {
    return EINVAL;
  }
  if (in.size > XATTR_SIZE_MAX) {
    return E2BIG;
  }
  if ((in.flags & ~static_cast<uint32_t>(XATTR_CREATE | XATTR_REPLACE)) != 0) {
    return EINVAL;
  }
  int error = takeXattrName(request, name);
  if (error == 0) {
    error = resolve(request.header.nodeid, inode, path);
  }
  if (error != 0) {
    return error;
  }
  const char* value = request.takeBytes(in.size);
  if (value == nullptr) {
    return EINVAL;
  }
  if (::setxattr(FdName(path).absolute(), name, value, in.size, static_cast<int>(in.flags)) != 0) {
    return errno;
  }
  if ((in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0 && inode->isRegular()) {
    return dropSetIds(path, S_ISGID);
  }
  return 0;
}

int FuseServer::removexattr(Request& request) {
  const char* name;
  Inode* inode;
  int path;
  int error = takeXattrName(request, name);
  if (error == 0) {
    error = resolve(request.header.nodeid, inode, path);
  }
  if (error != 0) {
    return error;
  }
  return ::removexattr(FdName(path).absolute(), name) == 0 ? 0 : errno;
}

}  // namespace tsvmm::virtio::fs
