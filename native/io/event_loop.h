#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "io/fd.h"

namespace tsvmm {

/// The I/O thread of a machine: epoll, posted functions and timers. Every queue of every virtio device is
/// served on it, so a handler must never block on anything but a bounded local operation.
class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;
  using Function = std::function<void()>;
  using TimerId = uint64_t;

  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  void start();
  /// Ends the thread after what has been posted so far, and joins it. Idempotent; not from the loop itself.
  void stop();

  // On the loop's own thread only (or before start()):

  /// Watches `fd` for `events` (EPOLLIN, EPOLLOUT, ...). Returns 0, or an errno: EPERM for a regular file,
  /// which is always ready and cannot be watched.
  int add(int fd, uint32_t events, Handler handler);
  int modify(int fd, uint32_t events);
  void remove(int fd);
  TimerId after(std::chrono::nanoseconds delay, Function function);
  void cancel(TimerId id);

  // From any thread:

  /// Runs `function` on the loop, in the order of posting. Silently dropped when the loop has stopped.
  void post(Function function);
  /// Runs `function` on the loop and returns when it has; directly if called on the loop or when the loop
  /// does not run.
  void call(const Function& function);
  bool inLoop() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  struct Watch {
    int fd;
    Handler handler;
  };

  void run();
  void runPosted();
  int runTimers();

  Fd epoll_;
  Fd wake_;
  std::thread thread_;
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  std::multimap<std::chrono::steady_clock::time_point, std::pair<TimerId, Function>> timers_;
  TimerId nextTimer_ = 1;
  std::mutex mutex_;
  std::vector<Function> posted_;
  bool stopping_ = false;
  bool accepting_ = false;
};

}  // namespace tsvmm
