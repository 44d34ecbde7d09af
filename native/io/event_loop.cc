#include "io/event_loop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <condition_variable>
#include <system_error>

namespace tsvmm {

EventLoop::EventLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wake_) {
    throw std::system_error(errno, std::generic_category(), "epoll_create1 or eventfd");
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake_.get();
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
}

EventLoop::~EventLoop() { stop(); }

void EventLoop::start() {
  {
    std::lock_guard lock(mutex_);
    accepting_ = true;
  }
  // Signals belong to the JavaScript thread: the loop's thread starts with all of them blocked.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), "tsvmm-io");
}

void EventLoop::stop() {
  {
    std::lock_guard lock(mutex_);
    accepting_ = false;
    stopping_ = true;
  }
  if (thread_.joinable()) {
    eventfd_t one = 1;
    (void)!write(wake_.get(), &one, sizeof one);
    thread_.join();
  }
}

int EventLoop::add(int fd, uint32_t events, Handler handler) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return errno;
  }
  watches_[fd] = std::make_shared<Watch>(Watch{fd, std::move(handler)});
  return 0;
}

int EventLoop::modify(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0 ? 0 : errno;
}

void EventLoop::remove(int fd) {
  if (watches_.erase(fd) != 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

EventLoop::TimerId EventLoop::after(std::chrono::nanoseconds delay, Function function) {
  const TimerId id = nextTimer_++;
  timers_.emplace(std::chrono::steady_clock::now() + delay, std::pair(id, std::move(function)));
  return id;
}

void EventLoop::cancel(TimerId id) {
  for (auto it = timers_.begin(); it != timers_.end(); ++it) {
    if (it->second.first == id) {
      timers_.erase(it);
      return;
    }
  }
}

void EventLoop::post(Function function) {
  bool wake;
  {
    std::lock_guard lock(mutex_);
    if (!accepting_) {
      return;
    }
    // The loop looks for posted functions before it waits.
    wake = posted_.empty() && !inLoop();
    posted_.push_back(std::move(function));
  }
  if (wake) {
    eventfd_t one = 1;
    (void)!write(wake_.get(), &one, sizeof one);
  }
}

void EventLoop::call(const Function& function) {
  if (inLoop()) {
    function();
    return;
  }
  std::mutex doneMutex;
  std::condition_variable doneCondition;
  bool done = false;
  {
    std::unique_lock lock(mutex_);
    if (!accepting_) {
      lock.unlock();
      function();
      return;
    }
    posted_.push_back([&] {
      function();
      std::lock_guard doneLock(doneMutex);
      done = true;
      doneCondition.notify_one();
    });
  }
  eventfd_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
  std::unique_lock lock(doneMutex);
  doneCondition.wait(lock, [&] { return done; });
}

void EventLoop::runPosted() {
  std::vector<Function> functions;
  {
    std::lock_guard lock(mutex_);
    functions.swap(posted_);
  }
  for (auto& function : functions) {
    function();
  }
}

int EventLoop::runTimers() {
  while (!timers_.empty()) {
    const auto now = std::chrono::steady_clock::now();
    auto first = timers_.begin();
    if (first->first > now) {
      const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(first->first - now).count() + 1;
      return static_cast<int>(std::min<int64_t>(wait, 60'000));
    }
    Function function = std::move(first->second.second);
    timers_.erase(first);
    function();
  }
  return -1;
}

void EventLoop::run() {
  epoll_event events[64];
  while (true) {
    runPosted();
    int wait = runTimers();
    {
      std::lock_guard lock(mutex_);
      if (stopping_ && posted_.empty()) {
        return;
      }
      if (!posted_.empty()) {
        wait = 0;  // descriptors have their turn even if functions keep posting others
      }
    }
    const int count = epoll_wait(epoll_.get(), events, 64, wait);
    for (int i = 0; i < count; i++) {
      const int fd = events[i].data.fd;
      if (fd == wake_.get()) {
        eventfd_t value;
        (void)!read(fd, &value, sizeof value);
        continue;
      }
      auto it = watches_.find(fd);
      if (it != watches_.end()) {
        // Held: the handler may remove its own watch.
        const std::shared_ptr<Watch> watch = it->second;
        watch->handler(events[i].events);
      }
    }
  }
}

}  // namespace tsvmm
