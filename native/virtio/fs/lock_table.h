#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include "virtio/fs/fd_budget.h"
#include "virtio/fs/file_table.h"
#include "virtio/fs/request.h"

namespace tsvmm::virtio::fs {

/// A lock that the guest waits for.
struct WaitingLock {
  ReplySlot slot;
  uint64_t unique = 0;
  uint64_t ticket = 0;
  uint64_t nodeId = 0;
  std::shared_ptr<OpenFile> file;
  fuse_lk_in in{};
};

/// Locks on the host's files. A POSIX lock belongs to its owner (a process of the guest) and file, so each
/// such pair has an open file description of its own, with locks of that description (fcntl(2), F_OFD_SETLK);
/// closing it drops them all, as POSIX wants of any close(). A flock() lock belongs to the guest's own open
/// file.
struct LockTable {
  static constexpr size_t kMaxWaiting =
      64;  ///< so that those who would unlock still get a descriptor of the queue

  std::map<std::pair<uint64_t, uint64_t>, CountedFd> owners;  ///< by node and owner
  std::list<WaitingLock> waiting;

  void dropOwner(uint64_t nodeId, uint64_t owner) { owners.erase({nodeId, owner}); }
  void dropNode(uint64_t nodeId) {
    owners.erase(owners.lower_bound({nodeId, 0}), owners.upper_bound({nodeId, ~uint64_t{0}}));
  }
};

}  // namespace tsvmm::virtio::fs
