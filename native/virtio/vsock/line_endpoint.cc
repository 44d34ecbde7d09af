#include "virtio/vsock/line_endpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tsvmm::virtio::vsock {

void LineEndpoint::start(EventLoop& /*loop*/, std::function<void()> ready) {
  ready_ = std::move(ready);
  readable_ = !queue_.empty() || finishing_;
  if (options_.onOpen) {
    options_.onOpen();
  }
}

ssize_t LineEndpoint::read(std::span<const iovec> to) {
  if (failure_ != nullptr) {
    return -ECONNABORTED;
  }
  size_t done = 0;
  for (const iovec& part : to) {
    const size_t length = std::min(part.iov_len, queue_.size());
    if (length == 0) {
      continue;
    }
    std::memcpy(part.iov_base, queue_.data(), length);
    queue_.consume(length);
    done += length;
  }
  if (done == 0 && !finishing_) {
    readable_ = false;
    return -EAGAIN;
  }
  return static_cast<ssize_t>(done);
}

ssize_t LineEndpoint::write(std::span<const iovec> from) {
  size_t done = 0;
  for (const iovec& part : from) {
    const char* at = static_cast<const char*>(part.iov_base);
    size_t left = part.iov_len;
    while (left != 0) {
      if (outputBroken_) {
        return -EPIPE;
      }
      if (outstanding_.load() > kMaxOutstanding) {
        held_.store(true);
        // Consumed meanwhile? Then nobody will call.
        if (outstanding_.load() > kMaxOutstanding) {
          writable_ = false;
          return done == 0 ? -EAGAIN : static_cast<ssize_t>(done);
        }
        held_.store(false);
      }
      // The guest may change its memory meanwhile: only the copy is looked at. A piece is not larger than
      // what may be outstanding, so that the check above bounds everything.
      const size_t length = std::min<size_t>(left, 4096);
      char piece[4096];
      std::memcpy(piece, at, length);
      if (!append(piece, length)) {
        return -EMSGSIZE;
      }
      at += length;
      left -= length;
      done += length;
    }
  }
  return static_cast<ssize_t>(done);
}

bool LineEndpoint::append(const char* bytes, size_t length) {
  while (length != 0) {
    const char* newline = static_cast<const char*>(std::memchr(bytes, '\n', length));
    const size_t part = newline == nullptr ? length : static_cast<size_t>(newline - bytes);
    if (line_.size() + part > options_.maxLine) {
      fail("a line from the guest is longer than allowed");
      return false;
    }
    line_.append(bytes, part);
    if (newline == nullptr) {
      return true;
    }
    outstanding_ += line_.size() + kLineOverhead;
    options_.onLine(std::exchange(line_, {}));
    bytes += part + 1;
    length -= part + 1;
  }
  return true;
}

void LineEndpoint::send(const std::string& bytes) {
  if (closed_ || finishing_ || failure_ != nullptr) {
    return;
  }
  if (queue_.size() + bytes.size() > options_.maxQueued) {
    fail("the guest does not read what it is sent");
  } else {
    queue_.append(bytes.data(), bytes.size());
    readable_ = true;
  }
  if (ready_) {
    ready_();
  }
}

void LineEndpoint::finish() {
  if (closed_ || finishing_) {
    return;
  }
  finishing_ = true;
  readable_ = true;
  outputBroken_ = true;
  if (ready_) {
    ready_();
  }
}

bool LineEndpoint::consumed(size_t bytes) {
  const size_t before = outstanding_.fetch_sub(bytes + kLineOverhead);
  return before - (bytes + kLineOverhead) <= kMaxOutstanding / 2 && held_.exchange(false);
}

void LineEndpoint::resume() {
  if (!closed_ && ready_) {
    writable_ = true;
    ready_();
  }
}

void LineEndpoint::fail(const char* reason) {
  failure_ = reason;
  readable_ = true;
  outputBroken_ = true;
  queue_.clear();
  line_.clear();
}

}  // namespace tsvmm::virtio::vsock
