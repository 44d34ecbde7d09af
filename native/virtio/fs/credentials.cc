#include "virtio/fs/credentials.h"

#include <linux/securebits.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace tsvmm::virtio::fs {
namespace {

struct ThreadState {
  bool prepared = false;
  bool ownUmask = false;
  bool canSwitch = false;
  uid_t uid = 0;
  gid_t gid = 0;
};
thread_local ThreadState state;

uid_t currentFsuid() { return static_cast<uid_t>(setfsuid(static_cast<uid_t>(-1))); }
gid_t currentFsgid() { return static_cast<gid_t>(setfsgid(static_cast<gid_t>(-1))); }

}  // namespace

void prepareThread() {
  if (state.prepared) {
    return;
  }
  state.prepared = true;
  // The umask belongs to what CLONE_FS shares: without a copy of its own this would be the whole process's.
  if (unshare(CLONE_FS) == 0) {
    umask(0);
    state.ownUmask = true;
  }
  state.uid = currentFsuid();
  state.gid = currentFsgid();
  // Else a change of the file system user id would take the capabilities away by which the server acts.
  const int bits = prctl(PR_GET_SECUREBITS);
  state.canSwitch = bits >= 0 && prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP) == 0;
  if (state.canSwitch && geteuid() != 0) {
    // Some capabilities, but not root: find out whether others' ids may be taken.
    setfsuid(state.uid == 0 ? 1 : 0);
    state.canSwitch = currentFsuid() != state.uid;
    setfsuid(state.uid);
  }
}

ActAs::ActAs(uid_t uid, gid_t gid, mode_t mask, bool exactly) {
  if (mask != 0 && state.ownUmask) {
    umask(mask);
    masked_ = true;
  }
  if (uid == state.uid && gid == state.gid) {
    return;
  }
  if (!state.canSwitch) {
    error_ = exactly ? EPERM : 0;
    return;
  }
  switched_ = true;
  setfsgid(gid);
  setfsuid(uid);
  if (currentFsuid() != uid || currentFsgid() != gid) {
    error_ = EINVAL;
  }
}

ActAs::~ActAs() {
  const int saved = errno;
  if (switched_) {
    setfsuid(state.uid);
    setfsgid(state.gid);
  }
  if (masked_) {
    umask(0);
  }
  errno = saved;
}

}  // namespace tsvmm::virtio::fs
