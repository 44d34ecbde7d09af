#include "virtio/console/console.h"

#include <cerrno>
#include <system_error>
#include <utility>

namespace tsvmm::virtio {
namespace {

// What one visit to a queue may move before other devices have their turn.
constexpr uint64_t kVisitBytes = 1 << 20;

}  // namespace

Console::Console(std::unique_ptr<ByteSource> source, std::unique_ptr<ByteSink> sink,
                 std::chrono::milliseconds quiet)
    : source_(std::move(source)), sink_(std::move(sink)), quiet_(quiet) {}

Console::~Console() { reset(); }

void Console::activate(Host& host) {
  host_ = &host;
  active_ = std::make_shared<Console*>(this);
  inputOpen_ = quiet_.count() == 0;
  quietWaits_ = 0;
  {
    std::lock_guard lock(sizeMutex_);
    sizeLoop_ = &host.loop();
    sizeActive_ = active_;
  }
  tellSize();
}

void Console::reset() {
  if (host_ == nullptr) {
    return;
  }
  {
    std::lock_guard lock(sizeMutex_);
    sizeLoop_ = nullptr;
  }
  if (source_) {
    source_->cancel();
  }
  if (sink_) {
    sink_->cancel();
  }
  active_.reset();
  awaitingSource_ = false;
  pending_ = false;
  pendingParts_.clear();
  host_ = nullptr;
}

void Console::notify(uint16_t index) {
  if (index == kReceiveQueue) {
    receive();
  } else if (index == kTransmitQueue) {
    transmit();
  }
}

void Console::come(uint16_t index) {
  host_->loop().post([weak = std::weak_ptr(active_), index] {
    const auto active = weak.lock();
    if (active && (*active)->host_->queue(index).enabled()) {
      (*active)->notify(index);
    }
  });
}

void Console::checkBroken(uint16_t index) {
  Queue& queue = host_->queue(index);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  }
}

void Console::awaitQuiet() {
  quietWaits_++;
  spoke_ = false;
  host_->loop().after(quiet_, [weak = std::weak_ptr(active_)] {
    const auto active = weak.lock();
    if (!active) {
      return;
    }
    Console& self = **active;
    if (self.spoke_ && self.quietWaits_ < kMaxQuietWaits) {
      self.awaitQuiet();
      return;
    }
    self.inputOpen_ = true;
    if (self.host_->queue(kReceiveQueue).enabled()) {
      self.receive();
    }
  });
}

void Console::receive() {
  if (!source_ || sourceEnded_ || awaitingSource_) {
    return;
  }
  if (!inputOpen_) {
    if (quietWaits_ == 0) {
      awaitQuiet();
    }
    return;
  }
  Queue& queue = host_->queue(kReceiveQueue);
  uint64_t moved = 0;
  bool wait = false;
  bool again = queue.drain([&](Chain& chain) {
    if (moved >= kVisitBytes) {
      return false;
    }
    const auto parts = chain.writableIovecs(kVisitBytes);
    if (parts.empty()) {
      queue.push(chain);
      return true;
    }
    const ssize_t count = source_->readv(parts.data(), static_cast<int>(parts.size()));
    if (count <= 0) {
      wait = count == -EAGAIN;
      sourceEnded_ = !wait;
      return false;
    }
    chain.advanceWritten(static_cast<uint64_t>(count));
    moved += static_cast<uint64_t>(count);
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    metrics.bytesRead.fetch_add(static_cast<uint64_t>(count), std::memory_order_relaxed);
    queue.push(chain);
    return true;
  });
  again = again || moved >= kVisitBytes;
  host_->signalQueue(kReceiveQueue);
  if (queue.broken()) {
    checkBroken(kReceiveQueue);
  } else if (wait) {
    // The guest has room: the next bytes are for it. Without room the source is left alone (back-pressure).
    awaitingSource_ = true;
    source_->awaitReadable(host_->loop(), [this] {
      awaitingSource_ = false;
      if (host_->queue(kReceiveQueue).enabled()) {
        receive();
      }
    });
  } else if (again && !sourceEnded_) {
    come(kReceiveQueue);
  }
}

bool Console::writePending() {
  while (pendingAt_ < pendingParts_.size() && sink_ && !sinkBroken_) {
    ssize_t count =
        sink_->writev(pendingParts_.data() + pendingAt_, static_cast<int>(pendingParts_.size() - pendingAt_));
    if (count == -EAGAIN || count == 0) {
      return false;
    }
    if (count < 0) {
      sinkBroken_ = true;
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
      host_->log("the console's output is thrown away from now on: " +
                 std::generic_category().message(static_cast<int>(-count)));
      break;
    }
    metrics.bytesWritten.fetch_add(static_cast<uint64_t>(count), std::memory_order_relaxed);
    while (pendingAt_ < pendingParts_.size() &&
           static_cast<size_t>(count) >= pendingParts_[pendingAt_].iov_len) {
      count -= static_cast<ssize_t>(pendingParts_[pendingAt_++].iov_len);
    }
    if (count > 0) {
      iovec& part = pendingParts_[pendingAt_];
      part.iov_base = static_cast<uint8_t*>(part.iov_base) + count;
      part.iov_len -= static_cast<size_t>(count);
    }
  }
  host_->queue(kTransmitQueue).push(pendingHead_, 0);
  pending_ = false;
  return true;
}

void Console::transmit() {
  spoke_ = true;
  if (pending_) {
    return;  // the sink's readiness goes on
  }
  Queue& queue = host_->queue(kTransmitQueue);
  uint64_t visited = 0;
  bool again = queue.drain([&](Chain& chain) {
    if (visited >= kVisitBytes || pending_) {
      return false;
    }
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    visited += chain.readableSize();
    pending_ = true;
    pendingHead_ = chain.head();
    pendingParts_ = chain.takeReadable(UINT64_MAX);
    pendingAt_ = 0;
    writePending();
    return true;
  });
  again = again || visited >= kVisitBytes;
  host_->signalQueue(kTransmitQueue);
  if (queue.broken()) {
    checkBroken(kTransmitQueue);
  } else if (pending_) {
    waitForSink();
  } else if (again) {
    come(kTransmitQueue);
  }
}

void Console::waitForSink() {
  sink_->awaitWritable(host_->loop(), [this] {
    if (!host_->queue(kTransmitQueue).enabled()) {
      return;
    }
    if (!writePending()) {
      waitForSink();
      return;
    }
    host_->signalQueue(kTransmitQueue);
    transmit();
  });
}

void Console::resize(uint16_t columns, uint16_t rows) {
  std::lock_guard lock(sizeMutex_);
  columns_ = columns;
  rows_ = rows;
  sizeChanged_ = true;
  if (sizeLoop_ != nullptr) {
    sizeLoop_->post([weak = sizeActive_] {
      if (const auto active = weak.lock()) {
        (*active)->tellSize();
      }
    });
  }
}

void Console::tellSize() {
  uint8_t bytes[4];
  {
    std::lock_guard lock(sizeMutex_);
    if (!std::exchange(sizeChanged_, false)) {
      return;
    }
    // Virtio 1.2, 5.3.4: le16 cols, le16 rows.
    bytes[0] = static_cast<uint8_t>(columns_);
    bytes[1] = static_cast<uint8_t>(columns_ >> 8);
    bytes[2] = static_cast<uint8_t>(rows_);
    bytes[3] = static_cast<uint8_t>(rows_ >> 8);
  }
  host_->updateConfig(0, bytes);
}

}  // namespace tsvmm::virtio
