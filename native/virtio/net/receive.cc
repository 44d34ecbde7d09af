#include <algorithm>
#include <cerrno>
#include <cstring>

#include "virtio/net/net_device.h"

namespace tsvmm::virtio::net {
namespace {

// What one visit may move before other devices have their turn.
constexpr uint32_t kVisitFrames = 64;
constexpr uint64_t kVisitBytes = 1 << 20;

// After a frame that is no longer than this the next is expected to be short as well: few parts are handed to
// the system call, and a long frame costs one copy. Parts are what the kernel checks one by one.
constexpr size_t kShort = 2048;
constexpr size_t kReceiveParts = 64;

}  // namespace

void NetDevice::receive(uint16_t index) {
  Pair& pair = pairs_[index];
  const uint16_t queueIndex = receiveQueue(index);
  Queue& queue = host_->queue(queueIndex);
  if (paused_ || lost_ || !pair.readable || pair.starved || !queue.enabled()) {
    return;
  }
  uint32_t frames = 0;
  uint64_t bytes = 0;
  while (true) {
    if (frames >= kVisitFrames || bytes >= kVisitBytes) {
      come(queueIndex);
      break;
    }
    if (toGuest_.limits() && !toGuest_.ready()) {
      // Nothing else goes on with it: the backend is not read, so it has no new edge.
      comeAfter(toGuest_.wait(), queueIndex);
      break;
    }
    const Received received = receiveFrame(pair, index);
    if (received == Received::kStop) {
      return;
    }
    if (received == Received::kNothing) {
      pair.readable = false;
      break;
    }
    if (received == Received::kNoBuffers) {
      if (queue.broken()) {
        break;
      }
      if (!queue.enableNotifications()) {
        pair.starved = true;
        break;
      }
    }
    frames++;
    bytes += pair.lastFrame;
  }
  tell();
  checkBroken(queueIndex);
}

NetDevice::Received NetDevice::receiveFrame(Pair& pair, uint16_t index) {
  Queue& queue = host_->queue(receiveQueue(index));
  queue.disableNotifications();
  if (const char* wrong = pair.buffers.fill(queue, std::max(longest_, pair.waiting.size()))) {
    host_->fail("queue " + std::to_string(receiveQueue(index)) + ": " + wrong);
    return Received::kStop;
  }
  if (pair.buffers.empty()) {
    return Received::kNoBuffers;
  }
  if (!pair.waiting.empty()) {
    return deliverWaiting(pair, queue);
  }
  const size_t room = mergeable_ ? pair.buffers.bytes() : pair.buffers.firstBytes();
  const size_t expected = std::min(room, pair.lastFrame <= kShort ? kShort : longest_);
  size_t count = 0;
  const size_t covered = pair.buffers.parts(expected, std::span(parts_).first(kReceiveParts), count);
  parts_[count] = {overflow_.get(), sizeof(Header) + kMaxFrame};
  const ssize_t got = backend_->read(index, std::span(parts_).first(count + 1));
  if (got < 0) {
    if (backend_->gone(static_cast<int>(-got))) {
      lost(got == -EPROTO ? "has sent what is no frame" : kGone);
    } else if (got != -EAGAIN && got != -EINTR) {
      countDropped();
    }
    return Received::kNothing;
  }
  const auto size = static_cast<size_t>(got);
  pair.lastFrame = size;
  if (size < sizeof(Header) + kEthernetHeader || size > sizeof(Header) + kMaxFrame ||
      (!mergeable_ && size > room)) {
    countDropped();
    return Received::kFrame;
  }
  if (!linkUp_) {
    return Received::kFrame;
  }
  if (size > covered) {
    pair.buffers.write(covered, overflow_.get(), std::min(size, room) - covered);
  }
  std::array<uint8_t, FrameFilter::kLooksAt> start{};
  if (!filter_.acceptsAll()) {
    pair.buffers.read(sizeof(Header), start.data(), start.size());
    if (!filter_.accepts(start)) {
      return Received::kFrame;
    }
  }
  if (size > room) {
    pair.waiting.resize(size);
    pair.buffers.read(0, pair.waiting.data(), room);
    std::memcpy(pair.waiting.data() + room, overflow_.get() + (room - covered), size - room);
    return deliverWaiting(pair, queue);
  }
  finishFrame(pair, queue, size);
  return Received::kFrame;
}

NetDevice::Received NetDevice::deliverWaiting(Pair& pair, Queue& queue) {
  const size_t size = pair.waiting.size();
  if (pair.buffers.bytes() < size) {
    if (pair.buffers.count() < queue.size()) {
      return Received::kNoBuffers;
    }
    countDropped();  // all that the driver can ever queue is too little
  } else {
    pair.buffers.write(0, pair.waiting.data(), size);
    finishFrame(pair, queue, size);
  }
  pair.waiting.clear();
  return Received::kFrame;
}

void NetDevice::finishFrame(Pair& pair, Queue& queue, size_t size) {
  // 5.1.6.4: the number of buffers that hold the frame, 1 without VIRTIO_NET_F_MRG_RXBUF.
  const uint16_t buffers = mergeable_ ? pair.buffers.needed(size) : uint16_t{1};
  pair.buffers.write(kBuffersOffset, &buffers, sizeof buffers);
  pair.buffers.push(queue, size);
  metrics.requests.fetch_add(1, std::memory_order_relaxed);
  metrics.bytesRead.fetch_add(size - sizeof(Header), std::memory_order_relaxed);
  if (toGuest_.limits()) {
    toGuest_.spend(size - sizeof(Header));
  }
}

}  // namespace tsvmm::virtio::net
