#include "loop.h"

#include <sys/epoll.h>

#include <array>
#include <utility>

#include "error.h"

namespace tsvmm::agent {

namespace {

/// The generation tells an event of a descriptor that was closed meanwhile from one of its successor.
std::uint64_t pack(int fd, std::uint32_t generation) {
  return (static_cast<std::uint64_t>(generation) << 32) | static_cast<std::uint32_t>(fd);
}

}  // namespace

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) {
    throw systemError("cannot create an epoll set", "");
  }
}

void Loop::add(int fd, std::uint32_t events, Handler handler) {
  const std::uint32_t generation = ++generation_;
  epoll_event event{};
  event.events = events;
  event.data.u64 = pack(fd, generation);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    throw systemError("cannot watch descriptor", std::to_string(fd));
  }
  entries_[fd] = {generation, std::make_shared<Handler>(std::move(handler))};
}

void Loop::modify(int fd, std::uint32_t events) {
  const auto entry = entries_.find(fd);
  if (entry == entries_.end()) {
    return;
  }
  epoll_event event{};
  event.events = events;
  event.data.u64 = pack(fd, entry->second.generation);
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::remove(int fd) {
  if (entries_.erase(fd) != 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

void Loop::run() {
  std::array<epoll_event, 32> events;
  while (!stopped_) {
    const int timeout = tasks_.empty() ? -1 : 0;
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    for (int i = 0; i < count; ++i) {
      const int fd = static_cast<int>(static_cast<std::uint32_t>(events[i].data.u64));
      const auto entry = entries_.find(fd);
      if (entry == entries_.end() || pack(fd, entry->second.generation) != events[i].data.u64) {
        continue;
      }
      // Keeps the handler alive while it runs, even if it removes itself.
      const std::shared_ptr<Handler> handler = entry->second.handler;
      (*handler)(events[i].events);
    }
    std::vector<std::function<void()>> tasks;
    tasks.swap(tasks_);
    for (auto& task : tasks) {
      task();
    }
  }
}

}  // namespace tsvmm::agent
