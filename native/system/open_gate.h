#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "io/fd.h"

namespace tsvmm::system {

/// Holds whoever opens a folder until its owner lets him (fanotify(7), FAN_OPEN_PERM), so that what the
/// folder shows can be brought up to date before. It has no thread: its owner calls serve() whenever fd() is
/// readable. When it is closed, or its process ends, nobody is held any more. This process itself is never
/// held.
class OpenGate {
 public:
  /// Returns 0 or -errno: -EPERM without CAP_SYS_ADMIN, -ENOSYS or -EINVAL where the kernel has no such
  /// thing.
  int open(const std::string& folder);
  int fd() const { return group_.get(); }
  /// Calls `onOpen` once where others wait, however many; they wait until letIn().
  void serve(const std::function<void()>& onOpen);
  /// Lets all who wait in.
  void letIn();
  void close();

 private:
  static constexpr size_t kMostWaiting = 64;

  void allow(int event);

  Fd group_;
  Fd waiting_[kMostWaiting];
  size_t count_ = 0;
};

}  // namespace tsvmm::system
