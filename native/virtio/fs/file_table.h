#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "virtio/fs/fd_budget.h"

namespace tsvmm::virtio::fs {

/// What is known of a file system of the host.
struct HostFileSystem {
  bool inMemory = false;  ///< nothing on it waits for a disk
  bool readsNow = true;   ///< it knows RWF_NOWAIT for reading; found out by trying
  bool writesNow = true;  ///< it knows RWF_NOWAIT for writing; found out by trying
};

/// What an open of the guest's stands for. Shared, because a worker may still use it when the guest has
/// closed it.
struct OpenFile {
  CountedFd fd;
  uint64_t nodeId = 0;
  bool directory = false;
  bool writable = false;
  bool synchronous = false;        ///< a write ends on the disk (O_SYNC, O_DSYNC)
  HostFileSystem* host = nullptr;  ///< where it is; not of a folder
  uint64_t position = 0;           ///< of a folder's descriptor: which offset getdents64() would go on from
};

/// Open files by file handle. A handle is an index with a generation, so a stale one is recognised.
class FileTable {
 public:
  /// A descriptor of the node that is open for reading or writing; -1 if none is known.
  int openedOf(uint64_t nodeId) const {
    const auto found = byNode_.find(nodeId);
    return found == byNode_.end() ? -1 : slots_[found->second].file->fd.get();
  }
  uint64_t add(std::shared_ptr<OpenFile> file) {
    uint32_t index;
    if (free_.empty()) {
      index = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    slots_[index].file = std::move(file);
    remember(index);
    return uint64_t{slots_[index].generation} << 32 | index;
  }
  /// nullptr if there is none, or one of the other kind.
  const std::shared_ptr<OpenFile>& find(uint64_t handle, bool directory) const {
    static const std::shared_ptr<OpenFile> none;
    const uint32_t index = static_cast<uint32_t>(handle);
    if (index >= slots_.size() || slots_[index].generation != handle >> 32 || !slots_[index].file ||
        slots_[index].file->directory != directory) {
      return none;
    }
    return slots_[index].file;
  }
  bool remove(uint64_t handle, bool directory) {
    if (!find(handle, directory)) {
      return false;
    }
    const uint32_t index = static_cast<uint32_t>(handle);
    const auto known = byNode_.find(slots_[index].file->nodeId);
    if (known != byNode_.end() && known->second == index) {
      byNode_.erase(known);
    }
    slots_[index].file.reset();
    slots_[index].generation++;
    free_.push_back(index);
    return true;
  }
  /// For a table to be put together again: how often each of its places was given out. At most `most` places
  /// are taken.
  std::vector<uint32_t> generations() const {
    std::vector<uint32_t> generations;
    for (const Slot& slot : slots_) {
      generations.push_back(slot.generation);
    }
    return generations;
  }
  void setGenerations(const std::vector<uint32_t>& generations, size_t most) {
    clear();
    slots_.resize(std::min(generations.size(), most));
    for (size_t i = 0; i < slots_.size(); i++) {
      slots_[i].generation = generations[i];
    }
  }
  /// Puts a file back under its handle. False: no such place, or it is taken.
  bool place(uint64_t handle, std::shared_ptr<OpenFile> file) {
    const auto index = static_cast<uint32_t>(handle);
    if (index >= slots_.size() || slots_[index].file || slots_[index].generation != handle >> 32) {
      return false;
    }
    slots_[index].file = std::move(file);
    remember(index);
    return true;
  }
  /// After the last place().
  void settle() {
    for (size_t i = slots_.size(); i-- > 0;) {
      if (!slots_[i].file) {
        free_.push_back(static_cast<uint32_t>(i));
      }
    }
  }
  /// Calls `visit(handle, file)` for each open file.
  template <typename Visit>
  void forEach(Visit&& visit) const {
    for (size_t i = 0; i < slots_.size(); i++) {
      if (slots_[i].file) {
        visit(uint64_t{slots_[i].generation} << 32 | i, *slots_[i].file);
      }
    }
  }
  void clear() {
    byNode_.clear();
    slots_.clear();
    free_.clear();
  }
  size_t size() const { return slots_.size() - free_.size(); }

 private:
  struct Slot {
    std::shared_ptr<OpenFile> file;
    uint32_t generation = 0;
  };
  void remember(uint32_t index) {
    if (slots_[index].file->fd) {
      byNode_[slots_[index].file->nodeId] = index;
    }
  }

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::unordered_map<uint64_t, uint32_t> byNode_;  ///< the last one opened of a node
};

}  // namespace tsvmm::virtio::fs
