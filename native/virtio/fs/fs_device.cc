#include "virtio/fs/fs_device.h"

#include <string>

namespace tsvmm::virtio::fs {
namespace {

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
  server_.attach(host.loop(), [this](uint64_t ticket, uint32_t written) { complete(ticket, written); });
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
  const uint64_t readBefore = server_.bytesRead();
  const uint64_t writtenBefore = server_.bytesWritten();
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
  metrics.bytesRead.fetch_add(server_.bytesRead() - readBefore, std::memory_order_relaxed);
  metrics.bytesWritten.fetch_add(server_.bytesWritten() - writtenBefore, std::memory_order_relaxed);
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

void FsDevice::complete(uint64_t ticket, uint32_t written) {
  const auto index = static_cast<uint16_t>(ticket >> 16);
  Queue& queue = host_->queue(index);
  if (queue.enabled() && !queue.broken()) {
    queue.push(static_cast<uint16_t>(ticket), written);
    host_->signalQueue(index);
  }
}

}  // namespace tsvmm::virtio::fs
