#include "virtio/fs/inode_table.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace tsvmm::virtio::fs {

std::atomic<long> FdBudget::used_{0};

long FdBudget::limit() {
  static const long limit = [] {
    rlimit nofile{};
    getrlimit(RLIMIT_NOFILE, &nofile);
    if (nofile.rlim_cur < nofile.rlim_max) {
      nofile.rlim_cur = nofile.rlim_max;
      setrlimit(RLIMIT_NOFILE, &nofile);
      getrlimit(RLIMIT_NOFILE, &nofile);
    }
    const long all = static_cast<long>(std::min<rlim_t>(nofile.rlim_cur, 1 << 24));
    return all - std::min(1024L, all / 4);
  }();
  return limit;
}

ProcFds::ProcFds() : folder_(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  if (!folder_) {
    throw std::system_error(errno, std::generic_category(), "/proc/self/fd");
  }
}

int ProcFds::reopen(int fd, int flags) const {
  return openat(folder_.get(), FdName(fd).relative(), (flags & ~O_NOFOLLOW) | O_CLOEXEC | O_NOCTTY);
}

std::string ProcFds::pathOf(int fd) const {
  char path[PATH_MAX];
  const ssize_t length = readlinkat(folder_.get(), FdName(fd).relative(), path, sizeof path);
  return length > 0 && length < PATH_MAX ? std::string(path, static_cast<size_t>(length)) : std::string();
}

FdName::FdName(int fd) {
  constexpr char kPrefix[] = "/proc/self/fd/";
  std::memcpy(path_, kPrefix, sizeof kPrefix - 1);
  char* number = path_ + sizeof kPrefix - 1;
  *std::to_chars(number, path_ + sizeof path_ - 1, fd).ptr = '\0';
  number_ = number;
}

void InodeTable::clear() {
  slots_.clear();
  free_.clear();
  byKey_.clear();
  mounts_.clear();
  heldPaths_ = clock_ = retryAt_ = 0;
}

void InodeTable::reset(Fd root, const struct statx& attributes) {
  clear();
  slots_.resize(kRootId);  // Node id 0 means "none"; index 1 with generation 0 is the root.
  Inode* inode = add(std::move(root), attributes, 0, false);
  inode->lookups = 1;
  inode->pinned = true;
}

void InodeTable::resetEmpty() {
  clear();
  slots_.resize(kRootId);
  Inode* inode = newInode();
  inode->key = {0, kRootId, 0, kNoShare};
  inode->type = S_IFDIR;
  inode->lookups = 1;
  inode->pinned = true;
  byKey_[inode->key] = kRootId;
}

Inode* InodeTable::find(uint64_t nodeId) {
  const uint32_t index = static_cast<uint32_t>(nodeId);
  if (index >= slots_.size() || !slots_[index].inode || slots_[index].inode->nodeId != nodeId) {
    return nullptr;
  }
  return slots_[index].inode.get();
}

Inode* InodeTable::findHeld(const InodeKey& key) {
  const auto found = byKey_.find(key);
  if (found == byKey_.end()) {
    return nullptr;
  }
  Inode* inode = slots_[found->second].inode.get();
  return inode->path_ ? inode : nullptr;
}

Inode* InodeTable::findOpened(Fd& path, const InodeKey& key) {
  const auto found = byKey_.find(key);
  if (found == byKey_.end()) {
    return nullptr;
  }
  Inode* inode = slots_[found->second].inode.get();
  if (inode->path_) {
    return inode;
  }
  // The file may be gone and its inode number another's by now: the handle tells.
  const Handle now = handleOf(path.get());
  if (now && now->handle_type == inode->handle_->handle_type &&
      now->handle_bytes == inode->handle_->handle_bytes &&
      std::memcmp(now->f_handle, inode->handle_->f_handle, now->handle_bytes) == 0) {
    hold(*inode, std::move(path));
    return inode;
  }
  byKey_.erase(found);
  return nullptr;
}

void InodeTable::hold(Inode& inode, Fd path) {
  inode.path_ = CountedFd(std::move(path));
  inode.handle_.reset();
  inode.recent = true;
  heldPaths_++;
}

Inode* InodeTable::newInode() {
  uint32_t index;
  if (free_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.inode = std::make_unique<Inode>();
  Inode& inode = *slot.inode;
  inode.nodeId = uint64_t{slot.generation} << 32 | index;
  return &inode;
}

Inode* InodeTable::add(Fd path, const struct statx& attributes, uint32_t share, bool submount) {
  Inode* inode = newInode();
  inode->key = InodeKey::of(attributes, share);
  inode->type = attributes.stx_mode & S_IFMT;
  inode->submount = submount;
  hold(*inode, std::move(path));
  byKey_[inode->key] = static_cast<uint32_t>(inode->nodeId);
  return inode;
}

std::vector<uint32_t> InodeTable::generations() const {
  std::vector<uint32_t> generations;
  for (const Slot& slot : slots_) {
    generations.push_back(slot.generation);
  }
  return generations;
}

void InodeTable::setGenerations(const std::vector<uint32_t>& generations, size_t most) {
  const size_t count = std::min(generations.size(), most);
  if (slots_.size() < count) {
    slots_.resize(count);
  }
  for (size_t i = kRootId + 1; i < count; i++) {
    if (!slots_[i].inode) {
      slots_[i].generation = generations[i];
    }
  }
}

void InodeTable::settle() {
  free_.clear();
  for (size_t i = slots_.size(); i-- > kRootId + 1;) {
    if (!slots_[i].inode && slots_[i].generation != 0) {
      free_.push_back(static_cast<uint32_t>(i));
    }
  }
}

bool InodeTable::place(uint64_t nodeId, Fd path, const struct statx& attributes, uint16_t type,
                       uint32_t share, bool submount, uint64_t lookups) {
  const auto index = static_cast<uint32_t>(nodeId);
  if (index <= kRootId || index >= slots_.size() || slots_[index].inode ||
      slots_[index].generation != nodeId >> 32) {
    return false;
  }
  slots_[index].inode = std::make_unique<Inode>();
  Inode& inode = *slots_[index].inode;
  inode.nodeId = nodeId;
  inode.type = type;
  inode.submount = submount;
  inode.lookups = lookups;
  if (path) {
    inode.key = InodeKey::of(attributes, share);
    hold(inode, std::move(path));
    byKey_.try_emplace(inode.key, index);
  } else {
    inode.key = {0, 0, 0, share};
  }
  return true;
}

bool InodeTable::forget(uint64_t nodeId, uint64_t count) {
  Inode* inode = find(nodeId);
  if (inode == nullptr || inode->pinned) {
    return false;
  }
  inode->lookups -= std::min(count, inode->lookups);
  if (inode->lookups != 0) {
    return false;
  }
  erase(static_cast<uint32_t>(nodeId));
  return true;
}

void InodeTable::erase(uint32_t index) {
  Slot& slot = slots_[index];
  const auto found = byKey_.find(slot.inode->key);
  if (found != byKey_.end() && found->second == index) {
    byKey_.erase(found);
  }
  if (slot.inode->path_) {
    heldPaths_--;
  }
  slot.inode.reset();
  // A node id is never given twice: after 2^32 rounds the slot stays empty.
  if (++slot.generation != 0) {
    free_.push_back(index);
  }
}

int InodeTable::path(Inode& inode) {
  inode.recent = true;
  if (inode.path_) {
    return inode.path_.get();
  }
  if (inode.share() == kNoShare) {
    errno = EROFS;
    return -1;
  }
  const auto mount = mounts_.find(inode.key.mount);
  if (mount == mounts_.end()) {
    errno = ESTALE;
    return -1;
  }
  Fd fd(open_by_handle_at(mount->second.fd.get(), inode.handle_.get(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) {
    return -1;
  }
  hold(inode, std::move(fd));
  return inode.path_.get();
}

InodeTable::Handle InodeTable::handleOf(int path) {
  Handle handle(static_cast<file_handle*>(std::malloc(sizeof(file_handle) + MAX_HANDLE_SZ)), std::free);
  int mountId;
  if (handle) {
    handle->handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(path, "", handle.get(), &mountId, AT_EMPTY_PATH) != 0) {
      handle.reset();
    }
  }
  return handle;
}

InodeTable::Mount& InodeTable::mountOf(const Inode& inode) {
  const auto [mount, added] = mounts_.try_emplace(inode.key.mount);
  if (added) {
    // open_by_handle_at() wants a descriptor that is really open.
    mount->second.fd.reset(proc_.reopen(inode.path_.get(), O_RDONLY | O_NONBLOCK));
  }
  return mount->second;
}

bool InodeTable::giveUpPath(Inode& inode) {
  if (!inode.isDirectory() && !inode.isRegular()) {
    return false;  // Few, and none that could be opened to stand for its mount.
  }
  Mount& mount = mountOf(inode);
  // A file without a name lives only by its descriptor.
  struct statx attributes;
  if (!mount.fd || statx(inode.path_.get(), "", AT_EMPTY_PATH, STATX_NLINK, &attributes) != 0 ||
      attributes.stx_nlink == 0) {
    return false;
  }
  Handle handle = handleOf(inode.path_.get());
  if (handle) {
    const Fd probe(open_by_handle_at(mount.fd.get(), handle.get(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
    if (!probe) {
      handle.reset();
    }
  }
  if (!handle) {
    // No right (CAP_DAC_READ_SEARCH), or a file system without handles: don't try again on this mount.
    if (!mount.proven) {
      mount.fd.reset();
    }
    return false;
  }
  mount.proven = true;
  const size_t size = sizeof(file_handle) + handle->handle_bytes;
  inode.handle_ = Handle(static_cast<file_handle*>(std::malloc(size)), std::free);
  if (!inode.handle_) {
    return false;
  }
  std::memcpy(inode.handle_.get(), handle.get(), size);
  inode.path_.reset();
  heldPaths_--;
  return true;
}

void InodeTable::giveUpPaths() {
  if (heldPaths_ < retryAt_) {
    return;
  }
  // Twice round at most: the first time a node only loses its mark.
  const size_t target = maxPaths_ - maxPaths_ / 8;
  for (size_t steps = 2 * slots_.size(); steps > 0 && heldPaths_ > target; steps--) {
    clock_ = (clock_ + 1) % slots_.size();
    Inode* inode = slots_[clock_].inode.get();
    if (inode == nullptr || inode->pinned || !inode->path_) {
      continue;
    }
    if (inode->recent) {
      inode->recent = false;
    } else {
      giveUpPath(*inode);
    }
  }
  retryAt_ = heldPaths_ > maxPaths_ ? heldPaths_ + heldPaths_ / 8 + 1 : 0;
}

}  // namespace tsvmm::virtio::fs
