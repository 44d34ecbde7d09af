#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "io/event_loop.h"

namespace tsvmm {

/// Threads for what may block (disks, file systems), so that the I/O thread never does. A thread is started
/// when there is work and none is idle, up to a bound; all signals are blocked in it.
class WorkerPool {
 public:
  using Function = std::function<void()>;

  /// `loop` must outlive the pool. `maxThreads` is 1 or more.
  explicit WorkerPool(EventLoop& loop, unsigned maxThreads = 4) : loop_(loop), maxThreads_(maxThreads) {}
  /// Finishes what was submitted, then joins the threads.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Runs `work` on a thread of the pool, and when it has ended `done` on the loop. From any thread. `done`
  /// may run after the pool is gone: it must hold what it needs (or a weak_ptr to it). Where no thread can be
  /// started at all, `work` runs on the caller's.
  void submit(Function work, Function done);
  /// Waits until all work submitted so far has ended. Its `done` functions may still be on their way.
  void drain();

 private:
  struct Job {
    Function work;
    Function done;
  };
  /// What has ended, collected so that many jobs cost one wake-up of the loop.
  struct Finished {
    std::mutex mutex;
    std::vector<Function> functions;
  };

  void run();
  void finish(Function done);

  EventLoop& loop_;
  const unsigned maxThreads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idleCondition_;
  std::deque<Job> jobs_;
  std::vector<std::thread> threads_;
  unsigned idle_ = 0;
  unsigned running_ = 0;
  bool stopping_ = false;
  std::shared_ptr<Finished> finished_ = std::make_shared<Finished>();
};

}  // namespace tsvmm
