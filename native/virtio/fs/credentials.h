#pragma once

#include <sys/types.h>

#include <cstdint>

namespace tsvmm::virtio::fs {

/// Makes the calling thread fit to create files for a guest: an umask of its own (0), and where the process
/// may, file system credentials that can change without losing capabilities. Cheap when done already.
void prepareThread();

/// While it lives, what the thread creates belongs to `uid` and `gid`: from the very first moment and by the
/// kernel's own rules (set-group-ID folders, default access control lists). The thread keeps its right to
/// everything else, because the guest's kernel has checked the requester's. A process without the right to
/// act for others creates everything as itself, or with `exactly` nothing for others.
class ActAs {
 public:
  ActAs(uid_t uid, gid_t gid, mode_t umask, bool exactly);
  ~ActAs();
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;

  /// 0; EINVAL: the owner does not exist in the process's user namespace; EPERM: it may not act for the
  /// owner.
  int error() const { return error_; }

 private:
  bool switched_ = false;
  bool masked_ = false;
  int error_ = 0;
};

}  // namespace tsvmm::virtio::fs
