// The folders that are shared, and the root above them where there are several: a read-only folder of the
// server's own with an entry for each.

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <system_error>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

constexpr uint64_t kForever = 86'400;  // seconds: this folder never changes
constexpr uint64_t kInode = 1;

}  // namespace

std::vector<FuseServer::Share> FuseServer::openShares(const FuseOptions& options) {
  std::vector<Share> shares;
  const auto add = [&](const std::string& name, const std::string& path, bool readOnly, int flags) {
    Fd fd(::open(path.c_str(), O_PATH | O_CLOEXEC | flags));
    if (!fd) {
      throw std::system_error(errno, std::generic_category(), path);
    }
    shares.push_back({name, std::move(fd), readOnly, InodeTable::kRootId});
  };
  if (options.exports.empty()) {
    add("", options.directory, options.readOnly, O_DIRECTORY);
  }
  for (const FuseExport& exported : options.exports) {
    add(exported.name, exported.path, exported.readOnly || options.readOnly, 0);
  }
  return shares;
}

bool FuseServer::readOnlyNode(uint64_t nodeId) {
  const Inode* inode = inodes_.find(nodeId);
  return inode != nullptr ? readOnly(inode->share()) : options_.readOnly;
}

int FuseServer::startExports() {
  inodes_.resetEmpty();
  for (uint32_t index = 0; index < shares_.size(); index++) {
    struct statx attributes;
    Fd path(fcntl(shares_[index].path.get(), F_DUPFD_CLOEXEC, 0));
    if (!path || statx(path.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) != 0) {
      return errno;
    }
    // Each folder is a file system of its own to the guest, so that inode numbers of different ones don't
    // mix.
    Inode* inode = inodes_.add(std::move(path), attributes, index, S_ISDIR(attributes.stx_mode));
    // Linux before 6.8 forgets where it has mounted such a file system while that is still in use.
    inode->pinned = true;
    shares_[index].nodeId = inode->nodeId;
  }
  return 0;
}

int FuseServer::serveExports(Request& request, const Operation& operation) {
  switch (request.header.opcode) {
    case FUSE_LOOKUP:
      return lookupExport(request);
    case FUSE_GETATTR:
      return exportsAttributes(request);
    case FUSE_ACCESS: {
      fuse_access_in in;
      return !request.take(in) ? EINVAL : (in.mask & W_OK) != 0 ? EROFS : 0;
    }
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      out.st.bsize = out.st.frsize = 4096;
      out.st.namelen = NAME_MAX;
      return request.reply(out);
    }
    case FUSE_OPENDIR:
      return request.reply(fuse_open_out{0, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR, 0});
    case FUSE_READDIR:
      return listExports(request, false);
    case FUSE_READDIRPLUS:
      return listExports(request, true);
    case FUSE_RELEASEDIR:
    case FUSE_SYNCFS:
    case FUSE_FSYNCDIR:
      return 0;  // Each folder below is a file system of its own and synchronised as such.
    case FUSE_GETXATTR:
      return ENODATA;
    case FUSE_LISTXATTR: {
      fuse_getxattr_in in;
      return !request.take(in) ? EINVAL : in.size == 0 ? request.reply(fuse_getxattr_out{}) : 0;
    }
    case FUSE_OPEN:
      return EISDIR;
    case FUSE_READLINK:
      return EINVAL;
    default:
      return (this->*operation.handler)(request);
  }
}

int FuseServer::fillExport(Share& share, fuse_entry_out& entry) {
  Inode* inode = inodes_.find(share.nodeId);
  struct statx attributes;
  if (inode == nullptr || statx(share.path.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) != 0) {
    return inode == nullptr ? ESTALE : errno;
  }
  inode->lookups++;
  fillEntry(*inode, attributes, entry);
  entry.entry_valid = kForever;
  return 0;
}

int FuseServer::lookupExport(Request& request) {
  const char* name;
  if (const int error = request.takeName(name)) {
    return error;
  }
  fuse_entry_out entry{};
  const auto found =
      std::find_if(shares_.begin(), shares_.end(), [name](const Share& share) { return share.name == name; });
  if (found == shares_.end()) {
    entry.entry_valid = kForever;  // Without a node: the name is absent.
    return request.reply(entry);
  }
  const int error = fillExport(*found, entry);
  return error != 0 ? error : request.reply(entry);
}

int FuseServer::exportsAttributes(Request& request) const {
  fuse_attr_out out{};
  out.attr_valid = kForever;
  out.attr.ino = kInode;
  out.attr.mode = S_IFDIR | 0555;
  out.attr.nlink = 2;
  out.attr.blksize = 4096;
  out.attr.atime = out.attr.mtime = out.attr.ctime = static_cast<uint64_t>(started_.tv_sec);
  out.attr.atimensec = out.attr.mtimensec = out.attr.ctimensec = static_cast<uint32_t>(started_.tv_nsec);
  return request.reply(out);
}

int FuseServer::listExports(Request& request, bool plus) {
  fuse_read_in in;
  if (!request.take(in)) {
    return EINVAL;
  }
  const size_t room = std::min({size_t{in.size}, static_cast<size_t>(request.out.left()), kOutputSize});
  const size_t header = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
  size_t used = 0;
  // Two entries for the folder and its parent, then the exports; an entry's offset is its number plus one.
  for (uint64_t at = in.offset; at < shares_.size() + 2; at++) {
    Share* share = at < 2 ? nullptr : &shares_[at - 2];
    const std::string name = share != nullptr ? share->name : std::string(at + 1, '.');
    const size_t size = FUSE_DIRENT_ALIGN(header + name.size());
    if (size > room - used) {
      break;
    }
    fuse_direntplus record{};
    record.dirent = {kInode, at + 1, static_cast<uint32_t>(name.size()), DT_DIR};
    if (share != nullptr) {
      fuse_entry_out entry{};
      if (fillExport(*share, entry) != 0) {
        continue;
      }
      record.dirent.ino = entry.attr.ino;
      record.dirent.type = (entry.attr.mode & S_IFMT) >> 12;
      if (plus) {
        record.entry_out = entry;
      } else {
        inodes_.forget(share->nodeId, 1);
      }
    }
    char* to = output_.get() + used;
    std::memset(to + size - 8, 0, 8);
    if (plus) {
      std::memcpy(to, &record, header);
    } else {
      std::memcpy(to, &record.dirent, header);
    }
    std::memcpy(to + header, name.data(), name.size());
    used += size;
  }
  return request.replyBytes(output_.get(), used);
}

}  // namespace tsvmm::virtio::fs
