#include "io/byte_stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace tsvmm {
namespace {
constexpr auto kBackgroundPause = std::chrono::milliseconds(200);
}

void FdWait::fire(const std::weak_ptr<State>& state) {
  if (const auto locked = state.lock()) {
    if (const auto ready = std::exchange(locked->ready, {})) {
      ready();
    }
  }
}

void FdWait::await(EventLoop& loop, const InheritedFd& fd, uint32_t events, std::function<void()> ready) {
  if (!state_) {
    state_ = std::make_shared<State>();
  }
  state_->ready = std::move(ready);
  const std::weak_ptr<State> weak = state_;
  if (!fd.alwaysReady()) {
    // One shot: a hang-up is told even to those who asked for nothing, and would be told for ever.
    const uint32_t once = events | EPOLLONESHOT;
    if (watched_ >= 0 && loop_ == &loop && loop.modify(watched_, once) == 0) {
      return;
    }
    if (loop.add(fd.get(), once, [weak](uint32_t) { fire(weak); }) == 0) {
      loop_ = &loop;
      watched_ = fd.get();
      return;
    }
  }
  loop.post([weak] { fire(weak); });
}

void FdWait::awaitLater(EventLoop& loop, std::function<void()> ready) {
  if (!state_) {
    state_ = std::make_shared<State>();
  }
  state_->ready = std::move(ready);
  loop.after(kBackgroundPause, [weak = std::weak_ptr(state_)] { fire(weak); });
}

void FdWait::cancel() {
  if (watched_ >= 0) {
    loop_->remove(watched_);
    watched_ = -1;
    loop_ = nullptr;
  }
  state_.reset();
}

ssize_t FdSource::readv(const iovec* parts, int count) {
  const ssize_t result = fd_.readv(parts, count);
  // What is typed now is for the job in the foreground; the terminal may come back.
  inBackground_ = result == -EIO && fd_.inBackground();
  return inBackground_ ? -EAGAIN : result;
}

void FdSource::awaitReadable(EventLoop& loop, std::function<void()> ready) {
  if (inBackground_) {
    wait_.awaitLater(loop, std::move(ready));
  } else {
    wait_.await(loop, fd_, EPOLLIN, std::move(ready));
  }
}

PushSource::PushSource(size_t limit, std::function<void()> onRoom)
    : limit_(limit), onRoom_(std::move(onRoom)) {}

size_t PushSource::push(const void* bytes, size_t length) {
  size_t taken;
  {
    std::lock_guard lock(mutex_);
    if (ended_) {
      return 0;
    }
    taken = std::min(length, limit_ - (bytes_.size() - head_));
    if (head_ != 0) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(head_));
      head_ = 0;
    }
    const auto* from = static_cast<const uint8_t*>(bytes);
    bytes_.insert(bytes_.end(), from, from + taken);
    roomWanted_ = roomWanted_ || taken < length;
  }
  wake();
  return taken;
}

void PushSource::end() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  wake();
}

void PushSource::wake() {
  std::lock_guard lock(state_->mutex);
  if (state_->loop == nullptr) {
    return;
  }
  state_->loop->post([weak = std::weak_ptr(state_)] {
    const auto state = weak.lock();
    if (!state) {
      return;
    }
    std::function<void()> ready;
    {
      std::lock_guard stateLock(state->mutex);
      state->loop = nullptr;
      ready = std::exchange(state->ready, {});
    }
    if (ready) {
      ready();
    }
  });
}

ssize_t PushSource::readv(const iovec* parts, int count) {
  ssize_t total = 0;
  bool tell = false;
  {
    std::lock_guard lock(mutex_);
    for (int i = 0; i < count && head_ < bytes_.size(); i++) {
      const size_t step = std::min(parts[i].iov_len, bytes_.size() - head_);
      std::memcpy(parts[i].iov_base, bytes_.data() + head_, step);
      head_ += step;
      total += static_cast<ssize_t>(step);
    }
    if (total == 0) {
      return ended_ ? 0 : -EAGAIN;
    }
    if (head_ == bytes_.size()) {
      bytes_.clear();
      head_ = 0;
    }
    tell = std::exchange(roomWanted_, false);
  }
  if (tell && onRoom_) {
    onRoom_();
  }
  return total;
}

void PushSource::awaitReadable(EventLoop& loop, std::function<void()> ready) {
  {
    std::lock_guard lock(state_->mutex);
    state_->loop = &loop;
    state_->ready = std::move(ready);
  }
  bool already;
  {
    std::lock_guard lock(mutex_);
    already = head_ < bytes_.size() || ended_;
  }
  if (already) {
    wake();
  }
}

void PushSource::cancel() {
  std::lock_guard lock(state_->mutex);
  state_->loop = nullptr;
  state_->ready = {};
}

}  // namespace tsvmm
