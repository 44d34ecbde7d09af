#include "virtio/console/port.h"

#include <cerrno>
#include <system_error>
#include <utility>

namespace tsvmm::virtio {
namespace {

// What one visit to a queue may move before other devices have their turn.
constexpr uint64_t kVisitBytes = 1 << 20;

}  // namespace

ConsolePort::ConsolePort(ConsolePortOptions options, Metrics& metrics, std::function<void()> hostChanged)
    : options_(std::move(options)), metrics_(metrics), hostChanged_(std::move(hostChanged)) {}

ConsolePort::~ConsolePort() { reset(); }

void ConsolePort::activate(Host& host, uint16_t receiveQueue, bool waitForOpen,
                           std::chrono::milliseconds quiet) {
  host_ = &host;
  receiveQueue_ = receiveQueue;
  waitForOpen_ = waitForOpen;
  quiet_ = quiet;
  active_ = std::make_shared<ConsolePort*>(this);
  inputOpen_ = !waitForOpen && quiet.count() == 0;
  quietWaits_ = 0;
}

void ConsolePort::reset() {
  if (host_ == nullptr) {
    return;
  }
  pause();
  paused_ = false;
  active_.reset();
  pending_ = false;
  pendingParts_.clear();
  inputOpen_ = false;
  host_ = nullptr;
}

void ConsolePort::pause() {
  paused_ = true;
  if (options_.source) {
    options_.source->cancel();
  }
  if (options_.sink) {
    options_.sink->cancel();
  }
  awaitingSource_ = false;
}

void ConsolePort::resume() {
  paused_ = false;
  if (pending_) {
    come(&ConsolePort::goOn, transmitQueue());
  }
}

Value ConsolePort::save() const {
  Value::Record state;
  state["inputOpen"] = inputOpen_;
  state["pendingHead"] = Value();
  state["pendingDone"] = pendingDone_;
  if (pending_) {
    state["pendingHead"] = pendingHead_;
  }
  return state;
}

void ConsolePort::restore(const Value& state) {
  paused_ = true;
  inputOpen_ = state.boolean("inputOpen");
  if (state.at("pendingHead").isNull()) {
    return;
  }
  const auto head = state.number<uint16_t>("pendingHead");
  const uint64_t done = state.integer("pendingDone");
  Chain chain;
  Queue& queue = host_->queue(transmitQueue());
  if (!queue.reopen(head, chain)) {
    throw ValueError("pendingHead: no chain of queue " + std::to_string(transmitQueue()) + ": " +
                     std::to_string(head));
  }
  chain.takeReadable(done);
  takePending(chain);
  pendingDone_ = done;
}

void ConsolePort::come(void (ConsolePort::*function)(), uint16_t index) {
  host_->loop().post([weak = std::weak_ptr(active_), function, index] {
    const auto active = weak.lock();
    if (active && (*active)->host_->queue(index).enabled()) {
      ((**active).*function)();
    }
  });
}

bool ConsolePort::checkBroken(uint16_t index) {
  const Queue& queue = host_->queue(index);
  if (!queue.broken()) {
    return false;
  }
  host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  return true;
}

bool ConsolePort::hostOpen() const {
  return (options_.source && !sourceEnded_) || (options_.sink && !sinkBroken_);
}

void ConsolePort::hangUp() {
  if (!std::exchange(sinkBroken_, true)) {
    if (pending_) {
      come(&ConsolePort::goOn, transmitQueue());
    }
    if (!hostOpen()) {
      hostChanged_();
    }
  }
}

void ConsolePort::endSource() {
  sourceEnded_ = true;
  if (!hostOpen()) {
    hostChanged_();
  }
}

void ConsolePort::breakSink() {
  sinkBroken_ = true;
  if (!hostOpen()) {
    hostChanged_();
  }
}

void ConsolePort::openInput(bool open) {
  inputOpen_ = open;
  if (open && !paused_ && host_->queue(receiveQueue_).enabled()) {
    receive();
  }
}

void ConsolePort::awaitQuiet() {
  quietWaits_++;
  spoke_ = false;
  host_->loop().after(quiet_, [weak = std::weak_ptr(active_)] {
    const auto active = weak.lock();
    if (!active) {
      return;
    }
    ConsolePort& self = **active;
    if (self.spoke_ && self.quietWaits_ < kMaxQuietWaits) {
      self.awaitQuiet();
      return;
    }
    self.openInput(true);
  });
}

void ConsolePort::receive() {
  if (!options_.source || sourceEnded_ || awaitingSource_ || paused_) {
    return;
  }
  if (!inputOpen_) {
    if (!waitForOpen_ && quietWaits_ == 0) {
      awaitQuiet();
    }
    return;
  }
  Queue& queue = host_->queue(receiveQueue_);
  uint64_t moved = 0;
  bool wait = false;
  bool ended = false;
  bool again = queue.drain([&](Chain& chain) {
    if (moved >= kVisitBytes) {
      return false;
    }
    const auto parts = chain.writableIovecs(kVisitBytes);
    if (parts.empty()) {
      queue.push(chain);
      return true;
    }
    const ssize_t count = options_.source->readv(parts.data(), static_cast<int>(parts.size()));
    if (count <= 0) {
      wait = count == -EAGAIN;
      ended = !wait;
      return false;
    }
    chain.advanceWritten(static_cast<uint64_t>(count));
    moved += static_cast<uint64_t>(count);
    metrics_.requests.fetch_add(1, std::memory_order_relaxed);
    metrics_.bytesRead.fetch_add(static_cast<uint64_t>(count), std::memory_order_relaxed);
    queue.push(chain);
    return true;
  });
  again = again || moved >= kVisitBytes;
  host_->signalQueue(receiveQueue_);
  if (checkBroken(receiveQueue_)) {
    return;
  }
  if (ended) {
    endSource();
  } else if (wait) {
    // The guest has room: the next bytes are for it. Without room the source is left alone (back-pressure).
    awaitingSource_ = true;
    options_.source->awaitReadable(host_->loop(), [this] {
      awaitingSource_ = false;
      if (host_->queue(receiveQueue_).enabled()) {
        receive();
      }
    });
  } else if (again) {
    come(&ConsolePort::receive, receiveQueue_);
  }
}

bool ConsolePort::writePending() {
  while (pendingAt_ < pendingParts_.size() && options_.sink && !sinkBroken_) {
    ssize_t count = options_.sink->writev(pendingParts_.data() + pendingAt_,
                                          static_cast<int>(pendingParts_.size() - pendingAt_));
    if (count == -EAGAIN || count == 0) {
      return false;
    }
    if (count < 0) {
      metrics_.errors.fetch_add(1, std::memory_order_relaxed);
      const std::string which = options_.name.empty() ? "the console" : "port " + options_.name;
      host_->log(which + ": output is thrown away from now on: " +
                 std::generic_category().message(static_cast<int>(-count)));
      breakSink();
      break;
    }
    metrics_.bytesWritten.fetch_add(static_cast<uint64_t>(count), std::memory_order_relaxed);
    pendingDone_ += static_cast<uint64_t>(count);
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
  host_->queue(transmitQueue()).push(pendingHead_, 0);
  pending_ = false;
  return true;
}

void ConsolePort::takePending(Chain& chain) {
  pending_ = true;
  pendingHead_ = chain.head();
  pendingParts_ = chain.takeReadable(UINT64_MAX);
  pendingAt_ = 0;
  pendingDone_ = 0;
}

void ConsolePort::transmit() {
  spoke_ = true;
  if (paused_ || pending_) {
    return;  // goOn() comes when the sink is ready
  }
  Queue& queue = host_->queue(transmitQueue());
  uint64_t visited = 0;
  bool again = queue.drain([&](Chain& chain) {
    if (visited >= kVisitBytes || pending_) {
      return false;
    }
    metrics_.requests.fetch_add(1, std::memory_order_relaxed);
    visited += chain.readableSize();
    takePending(chain);
    writePending();
    return true;
  });
  again = again || visited >= kVisitBytes;
  host_->signalQueue(transmitQueue());
  if (checkBroken(transmitQueue())) {
    return;
  }
  if (pending_) {
    waitForSink();
  } else if (again) {
    come(&ConsolePort::transmit, transmitQueue());
  }
}

void ConsolePort::goOn() {
  if (paused_) {
    return;
  }
  if (pending_ && !writePending()) {
    waitForSink();
    return;
  }
  host_->signalQueue(transmitQueue());
  transmit();
}

void ConsolePort::waitForSink() {
  options_.sink->awaitWritable(host_->loop(), [this] {
    if (host_->queue(transmitQueue()).enabled()) {
      goOn();
    }
  });
}

}  // namespace tsvmm::virtio
