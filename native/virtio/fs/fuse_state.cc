// Pausing a session, and its state as a value: what the guest knows, by the paths below the shared folder,
// and what it has open. Descriptors cannot be saved, so a file without a path (removed while open) is lost:
// ESTALE.

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "virtio/fs/credentials.h"
#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

constexpr uint64_t kStateVersion = 1;
constexpr int kSavedFlags = O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME;

Value::Bytes toBytes(const std::vector<uint32_t>& numbers) {
  Value::Bytes bytes(numbers.size() * sizeof(uint32_t));
  if (!numbers.empty()) {
    std::memcpy(bytes.data(), numbers.data(), bytes.size());
  }
  return bytes;
}

std::vector<uint32_t> toNumbers(std::string_view name, const Value::Bytes& bytes) {
  if (bytes.size() % sizeof(uint32_t) != 0) {
    throw ValueError(std::string(name) + ": expected a multiple of 4 bytes");
  }
  std::vector<uint32_t> numbers(bytes.size() / sizeof(uint32_t));
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
  }
  return numbers;
}

/// Opens what lies at `path` below `folder`; symbolic links, and whatever else leads out, are refused.
Fd openBeneath(int folder, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  // A symbolic link itself may be the last component: O_NOFOLLOW with O_PATH opens it, which
  // RESOLVE_NO_SYMLINKS allows.
  return Fd(static_cast<int>(syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how)));
}

}  // namespace

void FuseServer::pause(std::function<void()> paused) {
  paused_ = true;
  if (working_ == 0) {
    paused();
  } else {
    pauseDone_ = std::move(paused);
  }
}

void FuseServer::resume() {
  paused_ = false;
  pauseDone_ = nullptr;
  if (attached()) {
    retryLocks();
    scheduleLocks();
  }
}

/// The path of what `fd` holds below `root`, as the kernel knows it.
std::string FuseServer::pathBelow(const std::string& root, int fd) const {
  const std::string path = proc_.pathOf(fd);
  if (path.size() > root.size() + 1 && path.compare(0, root.size(), root) == 0 &&
      (path[root.size()] == '/' || root == "/")) {
    return path.substr(root == "/" ? 1 : root.size() + 1);
  }
  return {};
}

Value FuseServer::save() {
  Value::List shares;
  std::vector<std::string> roots;
  for (const Share& share : shares_) {
    shares.emplace_back(share.name);
    roots.push_back(proc_.pathOf(share.path.get()));
  }
  Value::List nodes;
  inodes_.forEach([&](Inode& inode) {
    Value::Record node{
        {"node", inode.nodeId}, {"lookups", inode.lookups}, {"type", inode.type}, {"share", inode.share()}};
    if (inode.pinned) {
      node.emplace("path", "");
    } else if (inode.share() < roots.size()) {
      const int fd = inodes_.path(inode);
      std::string path = fd < 0 ? "" : pathBelow(roots[inode.share()], fd);
      // The kernel marks a removed name, and others may have been removed and made anew.
      struct statx before;
      struct statx after;
      const Fd again = path.empty() ? Fd() : openBeneath(shares_[inode.share()].path.get(), path);
      if (again && statx(fd, "", AT_EMPTY_PATH, kStatxMask, &before) == 0 &&
          statx(again.get(), "", AT_EMPTY_PATH, kStatxMask, &after) == 0 &&
          InodeKey::of(before, 0) == InodeKey::of(after, 0)) {
        node.emplace("path", std::move(path));
        node.emplace("submount", inode.submount);
      }
    }
    nodes.emplace_back(std::move(node));
  });
  Value::List files;
  files_.forEach([&](uint64_t handle, const OpenFile& file) {
    const int flags = fcntl(file.fd.get(), F_GETFL);
    files.emplace_back(Value::Record{{"handle", handle},
                                     {"node", file.nodeId},
                                     {"directory", file.directory},
                                     {"flags", static_cast<uint32_t>(flags < 0 ? 0 : flags & kSavedFlags)}});
  });
  return Value::Record{{"version", kStateVersion},
                       {"initialised", initialised_},
                       {"submounts", submounts_},
                       {"extendedSetxattr", extendedSetxattr_},
                       {"shares", std::move(shares)},
                       {"nodes", std::move(nodes)},
                       {"nodeGenerations", toBytes(inodes_.generations())},
                       {"files", std::move(files)},
                       {"fileGenerations", toBytes(files_.generations())}};
}

void FuseServer::restore(const Value& state) {
  if (const uint64_t version = state.integer("version"); version != kStateVersion) {
    throw ValueError("version: this build reads version " + std::to_string(kStateVersion) + ", got " +
                     std::to_string(version));
  }
  prepareThread();
  endSession();
  const Value::List& shares = state.list("shares");
  const bool same = std::equal(shares.begin(), shares.end(), shares_.begin(), shares_.end(),
                               [](const Value& saved, const Share& share) {
                                 return saved.asString() != nullptr && *saved.asString() == share.name;
                               });
  if (!same) {
    throw ValueError("shares: expected the same exports in the same order");
  }
  const bool initialised = state.boolean("initialised");
  const bool submounts = state.boolean("submounts");
  const bool extended = state.boolean("extendedSetxattr");
  if (!initialised) {
    return;
  }
  if (const int error = startRoot()) {
    throw std::system_error(error, std::generic_category(), "the shared folder");
  }
  try {
    inodes_.setGenerations(toNumbers("nodeGenerations", state.bytes("nodeGenerations")), maxInodes_);
    for (const Value& node : state.list("nodes")) {
      restoreNode(node);
    }
    inodes_.settle();
    files_.setGenerations(toNumbers("fileGenerations", state.bytes("fileGenerations")),
                          static_cast<size_t>(FdBudget::limit()));
    for (const Value& file : state.list("files")) {
      restoreFile(file);
    }
    files_.settle();
  } catch (...) {
    endSession();
    throw;
  }
  initialised_ = initialised;
  submounts_ = submounts;
  extendedSetxattr_ = extended;
}

void FuseServer::restoreNode(const Value& state) {
  const uint64_t nodeId = state.integer("node");
  const uint64_t lookups = state.integer("lookups");
  const auto type = state.number<uint16_t>("type");
  const auto share = state.number<uint32_t>("share");
  if (Inode* pinned = inodes_.find(nodeId); pinned != nullptr && pinned->pinned) {
    pinned->lookups = lookups;
    return;
  }
  if (share >= shares_.size()) {
    throw ValueError("nodes: share: there is no export " + std::to_string(share));
  }
  Fd path;
  struct statx attributes {};
  if (state.has("path") && !FdBudget::exhausted()) {
    path = openBeneath(shares_[share].path.get(), state.string("path"));
    if (path && (statx(path.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) != 0 ||
                 (attributes.stx_mode & S_IFMT) != type)) {
      path.reset();
    }
  }
  const bool submount = state.has("submount") && state.boolean("submount");
  if (!inodes_.place(nodeId, std::move(path), attributes, type, share, submount, lookups)) {
    throw ValueError("nodes: node: " + std::to_string(nodeId) + " is out of range or there twice");
  }
  inodes_.trim();
}

void FuseServer::restoreFile(const Value& state) {
  const uint64_t handle = state.integer("handle");
  auto file = std::make_shared<OpenFile>();
  file->nodeId = state.integer("node");
  file->directory = state.boolean("directory");
  file->position = kUnknownPosition;
  const int flags = static_cast<int>(state.number<uint32_t>("flags")) & kSavedFlags;
  file->writable = !file->directory && (flags & O_ACCMODE) != O_RDONLY;
  file->synchronous = (flags & (O_SYNC | O_DSYNC)) != 0;
  Inode* inode;
  int path;
  static HostFileSystem gone;
  file->host = &gone;
  if (resolve(file->nodeId, inode, path) == 0 && !FdBudget::exhausted() &&
      (file->directory ? inode->isDirectory() : inode->isRegular()) &&
      !(file->writable && readOnly(inode->share()))) {
    const int how = file->directory ? O_RDONLY | O_DIRECTORY : flags | O_NONBLOCK;
    file->fd = CountedFd(Fd(proc_.reopen(path, how)));
    if (file->fd) {
      file->host = &hostFileSystem(*inode, file->fd.get());
    }
  }
  if (!files_.place(handle, std::move(file))) {
    throw ValueError("files: handle: " + std::to_string(handle) + " is out of range or there twice");
  }
}

}  // namespace tsvmm::virtio::fs
