// Locks on the host's files. Nothing blocks: a lock that is waited for is tried again when one of ours is
// given back, and by a timer, because a program of the host may give one back as well.

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>

#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{1};
constexpr std::chrono::milliseconds kLastRetry{64};
constexpr uint64_t kEndOfFile = INT64_MAX;  // the guest's OFFSET_MAX: to the end of the file

bool toHost(const fuse_file_lock& from, struct flock& to) {
  if (from.start > kEndOfFile || from.end > kEndOfFile || from.start > from.end ||
      (from.type != F_RDLCK && from.type != F_WRLCK && from.type != F_UNLCK)) {
    return false;
  }
  to = {};
  to.l_type = static_cast<short>(from.type);
  to.l_whence = SEEK_SET;
  to.l_start = static_cast<off_t>(from.start);
  to.l_len = from.end == kEndOfFile ? 0 : static_cast<off_t>(from.end - from.start + 1);
  return true;
}

}  // namespace

/// The open file description for an owner's locks on a file: 0 or an errno.
int FuseServer::lockFd(uint64_t nodeId, uint64_t owner, bool readOnly, int& fd) {
  CountedFd& held = locks_.owners[{nodeId, owner}];
  if (!held) {
    Inode* inode;
    int path;
    int error = resolve(nodeId, inode, path);
    if (error == 0 && !inode->isRegular()) {
      error = EINVAL;
    }
    if (error == 0 && FdBudget::exhausted()) {
      error = ENOLCK;
    }
    if (error == 0) {
      const bool noWriting = this->readOnly(inode->share());
      int opened = noWriting ? -1 : proc_.reopen(path, O_RDWR | O_NONBLOCK);
      if (opened < 0) {
        opened = proc_.reopen(path, (readOnly || noWriting ? O_RDONLY : O_WRONLY) | O_NONBLOCK);
      }
      if (opened >= 0) {
        held = CountedFd(Fd(opened));
      } else {
        error = errno;
      }
    }
    if (error != 0) {
      locks_.owners.erase({nodeId, owner});
      return error;
    }
  }
  fd = held.get();
  return 0;
}

int FuseServer::tryLock(uint64_t nodeId, const OpenFile& file, const fuse_lk_in& in) {
  if ((in.lk_flags & FUSE_LK_FLOCK) != 0) {
    const int operation = in.lk.type == F_RDLCK ? LOCK_SH : in.lk.type == F_WRLCK ? LOCK_EX : LOCK_UN;
    return flock(file.fd.get(), operation | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? EAGAIN : errno;
  }
  struct flock lock;
  if (!toHost(in.lk, lock)) {
    return EINVAL;
  }
  if (in.lk.type == F_UNLCK && locks_.owners.find({nodeId, in.owner}) == locks_.owners.end()) {
    return 0;
  }
  int fd;
  if (const int error = lockFd(nodeId, in.owner, in.lk.type == F_RDLCK, fd)) {
    return error;
  }
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
    if (in.lk.type == F_UNLCK && in.lk.start == 0 && in.lk.end == kEndOfFile) {
      locks_.dropOwner(nodeId, in.owner);
    }
    return 0;
  }
  return errno == EACCES ? EAGAIN : errno;
}

int FuseServer::getlk(Request& request) {
  fuse_lk_in in;
  if (!options_.hostLocks) {
    return ENOSYS;
  }
  struct flock lock;
  if (!request.take(in) || !toHost(in.lk, lock) || in.lk.type == F_UNLCK) {
    return EINVAL;
  }
  if (!files_.find(in.fh, false)) {
    return EBADF;
  }
  int fd;
  if (const int error = lockFd(request.header.nodeid, in.owner, in.lk.type == F_RDLCK, fd)) {
    return error;
  }
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    return errno;
  }
  fuse_lk_out out{};
  out.lk.type = static_cast<uint32_t>(lock.l_type);
  if (lock.l_type != F_UNLCK) {
    out.lk.start = static_cast<uint64_t>(lock.l_start);
    out.lk.end = lock.l_len == 0 ? kEndOfFile : static_cast<uint64_t>(lock.l_start + lock.l_len - 1);
    // Whose lock it is stays unknown: process ids of the host mean nothing in the guest.
  }
  return request.reply(out);
}

int FuseServer::setlk(Request& request) { return lock(request, false); }
int FuseServer::setlkw(Request& request) { return lock(request, true); }

int FuseServer::lock(Request& request, bool wait) {
  fuse_lk_in in;
  if (!options_.hostLocks) {
    return ENOSYS;
  }
  if (!request.take(in)) {
    return EINVAL;
  }
  const auto& file = files_.find(in.fh, false);
  if (!file) {
    return EBADF;
  }
  const uint64_t nodeId = file->nodeId;
  const int error = tryLock(nodeId, *file, in);
  if (error == 0 && locks_.waiting.empty()) {
    return 0;
  }
  if (error == EAGAIN && wait) {
    if (locks_.waiting.size() >= LockTable::kMaxWaiting) {
      return ENOLCK;
    }
    locks_.waiting.push_back({request.slot, request.header.unique, request.ticket, nodeId, file, in});
    lockDelay_ = kFirstRetry;
    scheduleLocks();
    return kPending;
  }
  if (error == 0) {
    // Given back, or made weaker: somebody may go on.
    retryLocks();
  }
  return error;
}

std::vector<uint64_t> FuseServer::waiting() const {
  std::vector<uint64_t> tickets;
  for (const WaitingLock& lock : locks_.waiting) {
    tickets.push_back(lock.ticket);
  }
  return tickets;
}

void FuseServer::retryLocks() {
  if (paused_) {
    return;
  }
  bool progress = false;
  for (auto it = locks_.waiting.begin(); it != locks_.waiting.end();) {
    const int error = tryLock(it->nodeId, *it->file, it->in);
    if (error == EAGAIN) {
      ++it;
      continue;
    }
    WaitingLock done = std::move(*it);
    it = locks_.waiting.erase(it);
    progress = true;
    completion_(done.ticket, done.slot.finish(done.unique, error, 0), error != 0);
  }
  if (progress) {
    lockDelay_ = kFirstRetry;
  }
}

void FuseServer::scheduleLocks() {
  if (paused_ || lockTimer_ != 0 || locks_.waiting.empty()) {
    return;
  }
  lockTimer_ = loop_->after(lockDelay_, [this] {
    lockTimer_ = 0;
    lockDelay_ = std::min(lockDelay_ * 2, kLastRetry);
    retryLocks();
    scheduleLocks();
  });
}

int FuseServer::interrupt(Request& request) {
  fuse_interrupt_in in;
  if (!request.take(in)) {
    return kNoReply;
  }
  for (auto it = locks_.waiting.begin(); it != locks_.waiting.end(); ++it) {
    if (it->unique == in.unique) {
      WaitingLock interrupted = std::move(*it);
      locks_.waiting.erase(it);
      completion_(interrupted.ticket, interrupted.slot.finish(interrupted.unique, EINTR, 0), true);
      break;
    }
  }
  return kNoReply;
}

}  // namespace tsvmm::virtio::fs
