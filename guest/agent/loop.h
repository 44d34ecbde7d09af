#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "io/fd.h"

namespace tsvmm::agent {

/// The agent's one thread: an epoll set whose members may come and go from inside a handler.
class Loop {
 public:
  using Handler = std::function<void(std::uint32_t events)>;

  /// Throws OperationError where the kernel has no epoll.
  Loop();

  /// Watches `fd` (not owned), level-triggered. Throws OperationError.
  void add(int fd, std::uint32_t events, Handler handler);
  /// Changes what a watched descriptor is watched for. 0 still reports errors and hang-ups.
  void modify(int fd, std::uint32_t events);
  /// Stops watching; does nothing for a descriptor that is not watched. Call before closing it.
  void remove(int fd);
  bool watches(int fd) const { return entries_.count(fd) != 0; }

  /// Runs `task` once, after the handlers of the current round: for what would destroy its caller.
  void post(std::function<void()> task) { tasks_.push_back(std::move(task)); }

  /// Waits for events and calls their handlers, until stop().
  void run();
  void stop() { stopped_ = true; }

 private:
  struct Entry {
    std::uint32_t generation;
    std::shared_ptr<Handler> handler;
  };

  Fd epoll_;
  std::unordered_map<int, Entry> entries_;
  std::vector<std::function<void()>> tasks_;
  std::uint32_t generation_ = 0;
  bool stopped_ = false;
};

}  // namespace tsvmm::agent
