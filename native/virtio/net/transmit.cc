#include <algorithm>
#include <cerrno>

#include "virtio/net/net_device.h"

namespace tsvmm::virtio::net {
namespace {

// What one visit may move before other devices have their turn.
constexpr uint32_t kVisitFrames = 64;
constexpr uint64_t kVisitBytes = 1 << 20;

}  // namespace

void NetDevice::transmit(uint16_t index) {
  Pair& pair = pairs_[index];
  const uint16_t queueIndex = transmitQueue(index);
  Queue& queue = host_->queue(queueIndex);
  if (paused_ || pair.blocked || !queue.enabled()) {
    return;
  }
  uint32_t frames = 0;
  uint64_t bytes = 0;
  bool throttled = false;
  bool again = queue.drain([&](Chain& chain) {
    if (frames >= kVisitFrames || bytes >= kVisitBytes) {
      return false;
    }
    throttled = fromGuest_.limits() && !fromGuest_.ready();
    if (throttled || send(index, chain) != 0) {
      return false;
    }
    frames++;
    bytes += chain.readableSize();
    queue.push(chain.head(), 0);
    return true;
  });
  again = again || frames >= kVisitFrames || bytes >= kVisitBytes;
  untoldFrames_ += frames;
  untoldBytes_ += bytes;
  tellSoon();
  if (queue.broken()) {
    checkBroken(queueIndex);
  } else if (!lost_ && (pair.blocked || !backend_->flush(index))) {
    waitForRoom(index);
  } else if (throttled) {
    comeAfter(fromGuest_.wait(), queueIndex);
  } else if (again) {
    come(queueIndex);
  }
}

void NetDevice::waitForRoom(uint16_t index) {
  pairs_[index].blocked = true;
  host_->loop().modify(backend_->descriptor(index), EPOLLIN | EPOLLOUT | EPOLLET);
}

int NetDevice::send(uint16_t index, Chain& chain) {
  const auto header = chain.read<Header>();
  const uint64_t size = chain.readableLeft();
  Header checked = header.value_or(Header{});
  if (!header || checkTransmit(checked, size, features_) != nullptr) {
    countDropped();
    return 0;
  }
  if (!linkUp_) {
    return 0;
  }
  // The first part is the backend's.
  size_t count = 1;
  size_t skip = sizeof(Header);
  for (const GuestSlice& slice : chain.readable()) {
    const size_t skipped = std::min(skip, slice.size());
    skip -= skipped;
    if (skipped == slice.size()) {
      continue;
    }
    if (count == parts_.size()) {
      countDropped();
      return 0;
    }
    parts_[count++] = slice.part(skipped, slice.size() - skipped).unsafeIovec();
  }
  const int error = -backend_->write(index, checked, std::span(parts_).first(count), size);
  if (error == EAGAIN) {
    pairs_[index].blocked = true;
    return EAGAIN;
  }
  metrics.requests.fetch_add(1, std::memory_order_relaxed);
  if (error == 0) {
    saidDown_ = false;
    metrics.bytesWritten.fetch_add(size, std::memory_order_relaxed);
    if (fromGuest_.limits()) {
      fromGuest_.spend(size);
    }
    return 0;
  }
  countDropped();
  if (backend_->gone(error)) {
    lost(kGone);
  } else if (error == EIO && !saidDown_) {
    saidDown_ = true;
    host_->log(backend_->name() + " is down, what the guest sends is lost: bring it up by ip link set");
  }
  return 0;
}

}  // namespace tsvmm::virtio::net
