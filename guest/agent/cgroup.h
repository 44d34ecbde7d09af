#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tsvmm::agent {

/// A container's control group (version 2), by its path below the root. crun makes it; we look after it once
/// crun is gone.
class Cgroup {
 public:
  explicit Cgroup(const std::string& path) : folder_("/sys/fs/cgroup" + path) {}

  /// Where its files are.
  const std::string& folder() const { return folder_; }

  /// Who is in it and below, at most `most` of them.
  std::vector<pid_t> processes(std::size_t most) const;
  /// Sends a signal to every process in it and below. Returns how many there were (SIGKILL: at least 1).
  int signal(int number) const;
  /// How many of its processes the kernel killed for want of memory.
  std::uint64_t oomKills() const;
  /// Lets nothing in it run, or lets everything run again. The kernel takes its time for the former. False
  /// with errno.
  bool freeze(bool frozen) const;
  /// Removes it with those below it, and those above that this leaves empty. False while processes are in it.
  bool remove() const;

 private:
  std::string folder_;
};

}  // namespace tsvmm::agent
