#include "virtio/rng/rng.h"

#include <sys/random.h>

#include <cerrno>
#include <memory>
#include <system_error>

namespace tsvmm::virtio {
namespace {

/// 0 or an errno.
int fillRandom(const iovec& part) {
  size_t done = 0;
  while (done < part.iov_len) {
    const ssize_t got = getrandom(static_cast<uint8_t*>(part.iov_base) + done, part.iov_len - done, 0);
    if (got < 0 && errno != EINTR) {
      return errno;
    }
    done += got > 0 ? static_cast<size_t>(got) : 0;
  }
  return 0;
}

}  // namespace

void Rng::activate(Host& host) {
  host_ = &host;
  active_ = std::make_shared<Rng*>(this);
}

void Rng::reset() {
  host_ = nullptr;
  active_.reset();
}

void Rng::notify(uint16_t index) {
  Queue& queue = host_->queue(index);
  int error = 0;
  uint64_t given = 0;
  bool again = queue.drain([&](Chain& chain) {
    if (given >= kMaxPerRequest) {
      return false;
    }
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    for (const iovec& part : chain.writableIovecs(kMaxPerRequest)) {
      error = fillRandom(part);
      if (error != 0) {
        return false;
      }
      chain.advanceWritten(part.iov_len);
    }
    given += chain.written();
    metrics.bytesRead.fetch_add(chain.written(), std::memory_order_relaxed);
    queue.push(chain);
    return true;
  });
  again = again || given >= kMaxPerRequest;
  host_->signalQueue(index);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  } else if (error != 0) {
    host_->fail("getrandom: " + std::generic_category().message(error));
  } else if (again) {
    // Other devices have their turn between two visits.
    host_->loop().post([weak = std::weak_ptr(active_), index] {
      const auto active = weak.lock();
      if (active && (*active)->host_->queue(index).enabled()) {
        (*active)->notify(index);
      }
    });
  }
}

}  // namespace tsvmm::virtio
