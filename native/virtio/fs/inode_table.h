#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/fd.h"
#include "virtio/fs/fd_budget.h"

struct file_handle;

namespace tsvmm::virtio::fs {

/// The magic links of this process's descriptors: how an O_PATH descriptor is opened for reading or writing,
/// or named for calls that know only paths. A magic link leads to exactly the file that the descriptor holds.
class ProcFds {
 public:
  /// Throws std::system_error if /proc is not mounted.
  ProcFds();
  /// Opens what `fd` holds anew. The caller has checked that it is a regular file or a folder. -1 and errno
  /// on failure.
  int reopen(int fd, int flags) const;
  int folder() const { return folder_.get(); }
  /// The path by which the kernel knows what `fd` holds; empty if it cannot be told.
  std::string pathOf(int fd) const;

 private:
  Fd folder_;
};

/// `fd` in decimal, relative to ProcFds::folder(), or as an absolute path.
class FdName {
 public:
  explicit FdName(int fd);
  const char* relative() const { return number_; }
  const char* absolute() const { return path_; }

 private:
  char path_[32];
  const char* number_;
};

/// What makes a file the same file: also over bind mounts within the folder, where a folder must be two
/// nodes, and over exports, each of which has rights of its own.
struct InodeKey {
  uint64_t device;
  uint64_t inode;
  uint64_t mount;
  uint32_t share;
  bool operator==(const InodeKey&) const = default;
  static InodeKey of(const struct statx& attributes, uint32_t share) {
    return {uint64_t{attributes.stx_dev_major} << 32 | attributes.stx_dev_minor, attributes.stx_ino,
            attributes.stx_mnt_id, share};
  }
};

/// A file that the guest knows.
struct Inode {
  uint64_t nodeId = 0;
  InodeKey key{};
  uint64_t lookups = 0;    ///< how often the guest was told of it less what it forgot
  uint16_t type = 0;       ///< S_IFMT bits; never change in a file's life
  bool submount = false;   ///< the root of another mount than its parent's
  bool pinned = false;     ///< the root or an export: never forgotten, its descriptor never given up
  bool recent = false;     ///< used since the table last looked for descriptors to save
  int64_t seenMtime = -1;  ///< nanoseconds, when it was last opened: whether the guest's cache is still good
  uint64_t seenSize = 0;

  bool isDirectory() const { return type == S_IFDIR; }
  bool isRegular() const { return type == S_IFREG; }
  uint32_t share() const { return key.share; }

 private:
  friend class InodeTable;
  CountedFd path_;  ///< O_PATH
  std::unique_ptr<file_handle, void (*)(void*)> handle_{
      nullptr, nullptr};  ///< instead of path_ while that is not held
};

/// The files that the guest knows, by node id and by identity. Each is held by an O_PATH descriptor, so that
/// it stays itself whatever is renamed or removed. When there get to be too many descriptors, those not used
/// lately are given up for file handles (name_to_handle_at(2)), where the host file system and the rights of
/// the process allow.
class InodeTable {
 public:
  static constexpr uint64_t kRootId = 1;
  static constexpr uint32_t kNoShare = ~uint32_t{0};  ///< of a root that is no folder of the host

  InodeTable(const ProcFds& proc, size_t maxPaths) : proc_(proc), maxPaths_(maxPaths) {}

  /// Starts anew with `root` as node 1.
  void reset(Fd root, const struct statx& attributes);
  /// Starts anew with a folder as node 1 that is none of the host: path() of it gives EROFS.
  void resetEmpty();
  void clear();

  /// The node, or nullptr if the guest was never told of it or has forgotten it.
  Inode* find(uint64_t nodeId);
  bool knows(const InodeKey& key) const { return byKey_.find(key) != byKey_.end(); }
  /// The node of this identity, if its descriptor is held: then the identity cannot have passed to another
  /// file.
  Inode* findHeld(const InodeKey& key);
  /// The node of the file that `path` holds (which it may take over), or nullptr.
  Inode* findOpened(Fd& path, const InodeKey& key);
  /// Takes in a file that is not in the table.
  Inode* add(Fd path, const struct statx& attributes, uint32_t share, bool submount);
  /// Counts off what the guest forgets; true if the node is gone for good.
  bool forget(uint64_t nodeId, uint64_t count);

  /// For a table to be put together again: how often each of its places was given out, after reset(). At most
  /// `most` places are taken.
  std::vector<uint32_t> generations() const;
  void setGenerations(const std::vector<uint32_t>& generations, size_t most);
  /// Puts a node back, or one whose file is gone if `path` holds nothing. False: no such place, or it is
  /// taken.
  bool place(uint64_t nodeId, Fd path, const struct statx& attributes, uint16_t type, uint32_t share,
             bool submount, uint64_t lookups);
  /// After the last place().
  void settle();
  /// Calls `visit(Inode&)` for each node.
  template <typename Visit>
  void forEach(Visit&& visit) {
    for (Slot& slot : slots_) {
      if (slot.inode) {
        visit(*slot.inode);
      }
    }
  }

  /// The node's O_PATH descriptor: valid until the next trim(). -1 and errno (ESTALE: the file is gone) if it
  /// cannot be had.
  int path(Inode& inode);
  /// Gives up descriptors that are too many. Between requests only.
  void trim() {
    if (heldPaths_ > maxPaths_) {
      giveUpPaths();
    }
  }

  size_t size() const { return byKey_.size(); }
  size_t heldPaths() const { return heldPaths_; }

 private:
  struct KeyHash {
    size_t operator()(const InodeKey& key) const {
      return (key.inode * 0x9e3779b97f4a7c15) ^ (key.device << 20) ^ key.mount ^ (uint64_t{key.share} << 40);
    }
  };
  struct Slot {
    std::unique_ptr<Inode> inode;
    uint32_t generation = 0;
  };

  /// What open_by_handle_at() starts from on a mount.
  struct Mount {
    Fd fd;                ///< none: handles don't work there
    bool proven = false;  ///< they have worked
  };
  using Handle = std::unique_ptr<file_handle, void (*)(void*)>;

  static Handle handleOf(int path);
  void giveUpPaths();
  bool giveUpPath(Inode& inode);
  Mount& mountOf(const Inode& inode);
  Inode* newInode();
  void hold(Inode& inode, Fd path);
  void erase(uint32_t index);

  const ProcFds& proc_;
  const size_t maxPaths_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::unordered_map<InodeKey, uint32_t, KeyHash> byKey_;
  std::unordered_map<uint64_t, Mount> mounts_;  ///< by mount id
  size_t heldPaths_ = 0;
  size_t clock_ = 0;
  size_t retryAt_ = 0;  ///< don't sweep again below this many: nothing could be given up
};

}  // namespace tsvmm::virtio::fs
