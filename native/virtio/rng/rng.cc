#include "virtio/rng/rng.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace tsvmm::virtio {
namespace {

constexpr uint16_t kQueue = 0;
// A host that has just booted may have no random bytes yet.
constexpr auto kUnseededPause = std::chrono::milliseconds(100);

/// Bytes stored, or a negative errno where there is none.
ssize_t fillRandom(const iovec& part) {
  size_t done = 0;
  while (done < part.iov_len) {
    const ssize_t got =
        getrandom(static_cast<uint8_t*>(part.iov_base) + done, part.iov_len - done, GRND_NONBLOCK);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return done != 0 ? static_cast<ssize_t>(done) : -errno;
    }
    done += static_cast<size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

// No more at once than a burst: many small answers rather than a large one and a long wait.
Rng::Rng(const RateLimits& limits)
    : limiter_(limits),
      most_(limits.bytesPerSecond == 0
                ? kMaxPerRequest
                : std::min(kMaxPerRequest,
                           limits.bytesBurst != 0 ? limits.bytesBurst : limits.bytesPerSecond)) {}

void Rng::activate(Host& host) {
  host_ = &host;
  active_ = std::make_shared<Rng*>(this);
}

void Rng::reset() {
  host_ = nullptr;
  active_.reset();
  paused_ = false;
  waiting_ = false;
}

void Rng::pause(std::function<void()> paused) {
  paused_ = true;
  paused();
}

void Rng::notify(uint16_t index) {
  if (index == kQueue && !waiting_) {
    serve();
  }
}

void Rng::later(std::chrono::nanoseconds delay) {
  waiting_ = true;
  host_->loop().after(delay, [weak = std::weak_ptr(active_)] {
    if (const auto active = weak.lock()) {
      (*active)->waiting_ = false;
      (*active)->serve();
    }
  });
}

void Rng::serve() {
  if (paused_ || !host_->queue(kQueue).enabled()) {
    return;  // the transport notifies when the pause is over
  }
  Queue& queue = host_->queue(kQueue);
  ssize_t error = 0;
  uint64_t given = 0;
  bool limited = false;
  bool again = queue.drain([&](Chain& chain) {
    limited = !limiter_.ready();
    if (given >= kMaxPerRequest || limited) {
      return false;
    }
    for (const iovec& part : chain.writableIovecs(most_)) {
      const ssize_t got = fillRandom(part);
      if (got < 0) {
        error = -got;
        break;
      }
      chain.advanceWritten(static_cast<uint64_t>(got));
      if (static_cast<size_t>(got) < part.iov_len) {
        break;
      }
    }
    if (error != 0 && chain.written() == 0) {
      return false;
    }
    error = 0;
    given += chain.written();
    limiter_.spend(chain.written());
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    metrics.bytesRead.fetch_add(chain.written(), std::memory_order_relaxed);
    queue.push(chain);
    return true;
  });
  again = again || given >= kMaxPerRequest;
  host_->signalQueue(kQueue);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(kQueue) + ": " + queue.brokenReason());
  } else if (error == EAGAIN) {
    later(kUnseededPause);
  } else if (error != 0) {
    host_->fail("getrandom: " + std::generic_category().message(static_cast<int>(error)));
  } else if (limited) {
    later(limiter_.wait());
  } else if (again) {
    later({});  // other devices have their turn between two visits
  }
}

}  // namespace tsvmm::virtio
