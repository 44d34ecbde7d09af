#pragma once

#include <atomic>

#include "io/fd.h"

namespace tsvmm::virtio::fs {

/// How many descriptors the guests may make this process hold, for all its file systems together. The rest of
/// the process's limit is kept for the VMM itself, so that no guest can starve it.
class FdBudget {
 public:
  /// Raises RLIMIT_NOFILE to its hard limit on first use.
  static long limit();
  static long used() { return used_.load(std::memory_order_relaxed); }
  static bool exhausted() { return used() >= limit(); }

 private:
  friend class CountedFd;
  static std::atomic<long> used_;
};

/// A descriptor that counts against the budget.
class CountedFd {
 public:
  CountedFd() = default;
  explicit CountedFd(Fd fd) : fd_(std::move(fd)) {
    if (fd_) {
      FdBudget::used_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  CountedFd(CountedFd&& other) noexcept = default;
  CountedFd& operator=(CountedFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::move(other.fd_);
    }
    return *this;
  }
  CountedFd(const CountedFd&) = delete;
  CountedFd& operator=(const CountedFd&) = delete;
  ~CountedFd() { reset(); }

  int get() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }
  void reset() {
    if (fd_) {
      FdBudget::used_.fetch_sub(1, std::memory_order_relaxed);
      fd_.reset();
    }
  }

 private:
  Fd fd_;
};

}  // namespace tsvmm::virtio::fs
