#pragma once

#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "io/fd.h"

namespace tsvmm {

/// A small io_uring (io_uring(7)) over the system calls: one thread prepares, submits and reaps. A descriptor
/// that becomes readable tells of completions.
class Uring {
 public:
  /// `entries`: how many submissions fit, a power of two up to 4096; twice as many completions do. Nothing,
  /// and `error` an errno, where the kernel has none (ENOSYS) or forbids it (EPERM: seccomp, or the sysctl
  /// kernel.io_uring_disabled), or it lacks what is needed (EOPNOTSUPP: before Linux 5.6).
  static std::unique_ptr<Uring> create(unsigned entries, int& error);
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  unsigned entries() const { return entries_; }
  /// An eventfd, to be watched edge-triggered; nobody needs to read it.
  int eventFd() const { return event_.get(); }

  /// The next submission, zeroed, or nullptr when there is no room before the next submit(). The caller keeps
  /// at most entries() operations in flight, so that no completion is ever without a place.
  io_uring_sqe* prepare();
  /// Hands to the kernel what has been prepared, in one system call, and waits until at least `wait`
  /// completions can be reaped. 0 or an errno; what was not taken is taken by the next submit().
  int submit(unsigned wait = 0);
  /// Prepared and not taken by the kernel yet.
  unsigned pending() const { return prepared_ - submitted_; }

  /// Takes the next completion; false when there is none.
  bool reap(uint64_t& data, int32_t& result);

 private:
  Uring() = default;

  unsigned entries_ = 0;
  Fd ring_;
  Fd event_;
  void* rings_ = nullptr;  ///< both rings: one mapping (IORING_FEAT_SINGLE_MMAP)
  size_t ringsSize_ = 0;
  io_uring_sqe* submissions_ = nullptr;
  size_t submissionsSize_ = 0;
  unsigned* submissionTail_ = nullptr;
  unsigned* completionHead_ = nullptr;
  unsigned* completionTail_ = nullptr;
  io_uring_cqe* completions_ = nullptr;
  unsigned completionMask_ = 0;
  unsigned prepared_ = 0;
  unsigned submitted_ = 0;
};

}  // namespace tsvmm
