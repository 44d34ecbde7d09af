// Pause and resume in place, which keep every connection, and save and restore, which end them: the other
// ends are programs of this host (virtio 1.2, 5.10.6.7).

#include "virtio/vsock/vsock.h"

namespace tsvmm::virtio::vsock {
namespace {

constexpr uint64_t kStateVersion = 1;

}  // namespace

void Vsock::pause(std::function<void()> paused) {
  paused_ = true;
  pausedAt_ = Clock::now();
  // Buffers taken ahead of use stay the queue's, so that there is nothing of them to save.
  receive_.giveBack();
  if (timer_ != 0) {
    host_->loop().cancel(timer_);
    timer_ = 0;
  }
  paused();
}

void Vsock::resume() {
  if (!paused_) {
    return;
  }
  paused_ = false;
  if (host_ == nullptr) {
    return;
  }
  // Nobody's patience has run meanwhile: the guest could not answer.
  const auto away = Clock::now() - pausedAt_;
  bool waiting = false;
  for (const auto& [key, connection] : table_) {
    if (connection->deadline != Clock::time_point::max()) {
      connection->deadline += away;
      waiting = true;
    }
  }
  if (waiting) {
    armTimer(kOpenRetry);
  }
  sendEvent();
  serveTransmit();
}

Value Vsock::save() {
  return Value::Record{{"version", kStateVersion}, {"cid", options_.cid}, {"nextHostPort", nextHostPort_}};
}

void Vsock::restore(Host& host, const Value& state) {
  if (const uint64_t version = state.integer("version"); version != kStateVersion) {
    throw ValueError("version: this build reads version " + std::to_string(kStateVersion) + ", got " +
                     std::to_string(version));
  }
  if (const uint64_t cid = state.integer("cid"); cid != options_.cid) {
    throw ValueError("cid: expected " + std::to_string(options_.cid) + ", got " + std::to_string(cid));
  }
  // The guest's ends of old connections live on until it has read the event: their ports come last.
  nextHostPort_ = state.number<uint32_t>("nextHostPort");
  paused_ = true;
  pausedAt_ = Clock::now();
  eventOwed_ = true;
  activate(host);
}

}  // namespace tsvmm::virtio::vsock
