#include "virtio/fs/fs_device.h"

#include <algorithm>
#include <string>

namespace tsvmm::virtio::fs {
namespace {

constexpr size_t kLeastInodes = 1 << 16;

void toIovecs(const std::vector<GuestSlice>& slices, std::vector<iovec>& to) {
  to.clear();
  for (const GuestSlice& slice : slices) {
    to.push_back(slice.unsafeIovec());
  }
}

}  // namespace

FsDevice::~FsDevice() { reset(); }

void FsDevice::activate(Host& host) {
  reset();
  host_ = &host;
  activation_ = std::make_shared<int>(0);
  // A Linux guest spends a KiB on each file that it knows: one that knows more is none that means well.
  server_.limitInodes(std::max<size_t>(kLeastInodes, host.memory().size() / 1024));
  server_.attach(host.loop(), [this](uint64_t ticket, uint32_t written, bool failed) {
    complete(ticket, written, failed);
  });
}

void FsDevice::reset() {
  if (server_.attached()) {
    server_.detach();
  }
  activation_.reset();
  host_ = nullptr;
}

void FsDevice::notify(uint16_t index) {
  if (host_ == nullptr || !host_->queue(index).enabled() || host_->queue(index).broken()) {
    return;
  }
  Queue& queue = host_->queue(index);
  bool pushed = false;
  const bool more = queue.drain([&](Chain& chain) {
    toIovecs(chain.readable(), in_);
    toIovecs(chain.writable(), out_);
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    // A request that is answered later is named by its queue and the head of its chain.
    const FuseServer::Outcome outcome = server_.handle(in_, out_, uint64_t{index} << 16 | chain.head());
    if (outcome.failed) {
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
    }
    if (!outcome.pending) {
      queue.push(chain.head(), outcome.written);
      pushed = true;
    }
    return true;
  });
  countBytes();
  if (pushed) {
    host_->signalQueue(index);
  }
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  } else if (more) {
    host_->loop().post([this, index, activation = std::weak_ptr<int>(activation_)] {
      if (!activation.expired()) {
        notify(index);
      }
    });
  }
}

void FsDevice::countBytes() {
  metrics.bytesRead.store(server_.bytesRead(), std::memory_order_relaxed);
  metrics.bytesWritten.store(server_.bytesWritten(), std::memory_order_relaxed);
}

void FsDevice::complete(uint64_t ticket, uint32_t written, bool failed) {
  countBytes();
  if (failed) {
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
  }
  const auto index = static_cast<uint16_t>(ticket >> 16);
  Queue& queue = host_->queue(index);
  if (queue.enabled() && !queue.broken()) {
    queue.push(static_cast<uint16_t>(ticket), written);
    host_->signalQueue(index);
  }
}

}  // namespace tsvmm::virtio::fs
