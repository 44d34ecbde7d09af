#pragma once

#include <string>

namespace tsvmm::agent {

/// A container's control group (version 2), by its path below the root. crun makes it; we look after it once
/// crun is gone.
class Cgroup {
 public:
  explicit Cgroup(const std::string& path) : folder_("/sys/fs/cgroup" + path) {}

  /// Sends a signal to every process in it and below. Returns how many there were (SIGKILL: at least 1).
  int signal(int number) const;
  /// Whether the kernel killed a process of it for want of memory.
  bool oomKilled() const;
  /// Removes it with those below it, and those above that this leaves empty. False while processes are in it.
  bool remove() const;

 private:
  std::string folder_;
};

}  // namespace tsvmm::agent
