#pragma once

#include <sys/eventfd.h>

#include <condition_variable>
#include <mutex>

#include "io/event_loop.h"
#include "io/fd.h"

namespace tsvmm::test {

/// Returns when the loop has run what was posted, and served every descriptor that was ready, before the
/// call.
inline void settle(EventLoop& loop) {
  // epoll hands out descriptors in the order in which they became ready: this one is the last.
  const Fd last(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  std::mutex mutex;
  std::condition_variable condition;
  bool served = false;
  loop.call([&] {
    loop.add(last.get(), EPOLLIN, [&](uint32_t) {
      loop.remove(last.get());
      const std::lock_guard lock(mutex);
      served = true;
      condition.notify_one();
    });
  });
  eventfd_write(last.get(), 1);
  {
    std::unique_lock lock(mutex);
    condition.wait(lock, [&] { return served; });
  }
  loop.call([] {});  // the handler has returned, and what the others have posted has run
}

}  // namespace tsvmm::test
