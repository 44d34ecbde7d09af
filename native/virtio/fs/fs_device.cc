#include "virtio/fs/fs_device.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

namespace tsvmm::virtio::fs {
namespace {

constexpr size_t kLeastInodes = 1 << 16;
constexpr uint64_t kStateVersion = 1;
constexpr uint16_t kHighPriorityQueue = 0;
constexpr uint64_t kRequestQueue = 1;  // the last one
constexpr uint32_t kMostUntold = 16;
constexpr std::chrono::milliseconds kLongestUntold{1};

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
  if (host_ != nullptr) {
    host_->loop().cancel(tellTimer_);
  }
  tellTimer_ = 0;
  untold_ = 0;
  kept_.clear();
  paused_ = false;
  host_ = nullptr;
}

void FsDevice::notify(uint16_t index) {
  if (host_ == nullptr || paused_ || !host_->queue(index).enabled() || host_->queue(index).broken()) {
    return;
  }
  Queue& queue = host_->queue(index);
  uint32_t pushed = 0;
  replied_ = false;
  const bool more = queue.drain([&](Chain& chain) {
    pushed += serve(index, chain) ? 1 : 0;
    return true;
  });
  countBytes();
  if (pushed != 0 && index == kHighPriorityQueue && !replied_) {
    tellLater(pushed);
  } else if (pushed != 0) {
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

/// Nobody waits for what has no reply (FORGET): the driver finds it when it is interrupted for a reply, which
/// spares an interrupt for each file that is removed. It is interrupted for it a little later at the latest,
/// because it waits for them all when it unmounts.
void FsDevice::tellLater(uint32_t count) {
  untold_ += count;
  if (untold_ >= kMostUntold) {
    tellNow();
  } else if (tellTimer_ == 0) {
    tellTimer_ = host_->loop().after(kLongestUntold, [this] {
      tellTimer_ = 0;
      tellNow();
    });
  }
}

void FsDevice::tellNow() {
  if (tellTimer_ != 0) {
    host_->loop().cancel(tellTimer_);
    tellTimer_ = 0;
  }
  untold_ = 0;
  if (host_->queue(kHighPriorityQueue).enabled()) {
    host_->signalQueue(kHighPriorityQueue);
  }
}

/// True if the request has been answered.
bool FsDevice::serve(uint16_t index, const Chain& chain) {
  toIovecs(chain.readable(), in_);
  toIovecs(chain.writable(), out_);
  metrics.requests.fetch_add(1, std::memory_order_relaxed);
  // A request that is answered later is named by its queue and the head of its chain.
  const FuseServer::Outcome outcome = server_.handle(in_, out_, uint64_t{index} << 16 | chain.head());
  if (outcome.failed) {
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
  }
  replied_ |= outcome.written != 0;
  if (!outcome.pending) {
    host_->queue(index).push(chain.head(), outcome.written);
  }
  return !outcome.pending;
}

void FsDevice::pause(std::function<void()> paused) {
  paused_ = true;
  if (untold_ != 0) {
    tellNow();
  }
  server_.pause(std::move(paused));
}

void FsDevice::resume() {
  paused_ = false;
  server_.resume();
  for (const Kept& kept : std::exchange(kept_, {})) {
    if (serve(kept.queue, kept.chain)) {
      host_->signalQueue(kept.queue);
    }
  }
}

Value FsDevice::save() {
  Value::List waiting;
  const auto keep = [&waiting](uint64_t queue, uint64_t head) {
    waiting.emplace_back(Value::Record{{"queue", queue}, {"head", head}});
  };
  for (const uint64_t ticket : server_.waiting()) {
    keep(ticket >> 16, ticket & 0xffff);
  }
  for (const Kept& kept : kept_) {
    keep(kept.queue, kept.chain.head());
  }
  return Value::Record{
      {"version", kStateVersion}, {"waiting", std::move(waiting)}, {"session", server_.save()}};
}

void FsDevice::restore(Host& host, const Value& state) {
  if (const uint64_t version = state.integer("version"); version != kStateVersion) {
    throw ValueError("version: this build reads version " + std::to_string(kStateVersion) + ", got " +
                     std::to_string(version));
  }
  activate(host);
  pause([] {});
  try {
    server_.restore(state.at("session"));
    for (const Value& waiting : state.list("waiting")) {
      const auto index = static_cast<uint16_t>(waiting.integer("queue", kRequestQueue));
      Kept kept{index, {}};
      if (!host.queue(index).enabled() ||
          !host.queue(index).reopen(waiting.number<uint16_t>("head"), kept.chain)) {
        throw ValueError("waiting: head: no such request");
      }
      kept_.push_back(std::move(kept));
    }
  } catch (const ValueError&) {
    reset();
    throw;
  } catch (const std::exception& error) {
    reset();
    throw ValueError(std::string("session: ") + error.what());
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
