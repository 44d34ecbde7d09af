#include <sys/eventfd.h>

#include <algorithm>

#include "virtio/mmio_registers.h"
#include "virtio/mmio_transport.h"

namespace tsvmm::virtio {
namespace {

using namespace mmio;

constexpr uint64_t kStateVersion = 1;

Value saveQueue(const QueueConfig& config, const Queue& queue) {
  const QueueState state = queue.enabled() ? queue.state() : QueueState{};
  return Value::Record{
      {"size", config.size},           {"ready", config.ready}, {"descriptors", config.descriptors},
      {"available", config.available}, {"used", config.used},   {"nextAvailable", state.nextAvailable},
      {"nextUsed", state.nextUsed}};
}

QueueConfig queueConfig(const Value& value) {
  QueueConfig config;
  config.size = value.number<uint16_t>("size");
  config.ready = value.boolean("ready");
  config.descriptors = value.integer("descriptors");
  config.available = value.integer("available");
  config.used = value.integer("used");
  return config;
}

}  // namespace

void MmioTransport::begin() {
  if (!paused_) {
    // Edge-triggered, so that nobody has to read the counter: a system call less for each notification.
    loop_.add(notify_.get(), EPOLLIN | EPOLLET, [this](uint32_t) { serveQueues(); });
  } else {
    device_->pause([] {});
  }
}

void MmioTransport::donePausing() {
  pauseAttempt_.reset();
  if (pauseDone_ != nullptr) {
    const auto done = std::move(pauseDone_);
    pauseDone_ = nullptr;
    done();
  }
}

void MmioTransport::pause(std::function<void()> paused) {
  if (paused_) {
    paused();
    return;
  }
  paused_ = true;
  if (!active_) {
    paused();
    return;
  }
  loop_.remove(notify_.get());
  pauseDone_ = std::move(paused);
  pauseAttempt_ = std::make_shared<int>(0);
  device_->pause([this, attempt = std::weak_ptr(pauseAttempt_)] {
    if (!attempt.expired()) {
      donePausing();
    }
  });
}

void MmioTransport::resume() {
  if (!paused_) {
    return;
  }
  paused_ = false;
  pauseDone_ = nullptr;
  pauseAttempt_.reset();
  if (!active_) {
    return;
  }
  device_->resume();
  if (!active_) {
    return;
  }
  begin();
  // Whatever was made available or told to the driver meanwhile.
  const eventfd_t one = 1;
  (void)!::write(notify_.get(), &one, sizeof one);
  if (interruptStatus_.load(std::memory_order_acquire) != 0) {
    raiseInterrupt_();
  }
}

Value MmioTransport::save() {
  settleReset();
  std::lock_guard lock(mutex_);
  Value::List queues;
  for (size_t i = 0; i < configs_.size(); i++) {
    queues.push_back(saveQueue(configs_[i], queues_[i]));
  }
  return Value::Record{{"version", kStateVersion},
                       {"deviceId", description_.deviceId},
                       {"status", status_.load()},
                       {"deviceFeaturesSelect", deviceFeaturesSelect_},
                       {"driverFeaturesSelect", driverFeaturesSelect_},
                       {"driverFeatures", driverFeatures_},
                       {"queueSelect", queueSelect_},
                       {"interruptStatus", interruptStatus_.load()},
                       {"configGeneration", configGeneration_.load()},
                       {"config", config_},
                       {"queues", std::move(queues)},
                       {"removed", removed_.load()},
                       {"device", active_ ? device_->save() : Value()}};
}

void MmioTransport::applyRegisters(const Value& state) {
  if (const uint64_t version = state.integer("version"); version != kStateVersion) {
    throw ValueError("version: this build reads version " + std::to_string(kStateVersion) + ", got " +
                     std::to_string(version));
  }
  if (state.number<uint32_t>("deviceId") != description_.deviceId) {
    throw ValueError("deviceId: expected " + std::to_string(description_.deviceId) + " (" +
                     description_.name + "), got " + std::to_string(state.integer("deviceId")));
  }
  const uint64_t features = state.integer("driverFeatures");
  const auto status = state.number<uint32_t>("status");
  if ((status & kFeaturesOk) != 0 && (features & ~offeredFeatures()) != 0) {
    throw ValueError("driverFeatures: has bits that this device does not offer");
  }
  const Value::Bytes& config = state.bytes("config");
  if (config.size() != config_.size()) {
    throw ValueError("config: expected " + std::to_string(config_.size()) + " bytes, got " +
                     std::to_string(config.size()));
  }
  if (state.list("queues").size() != configs_.size()) {
    throw ValueError("queues: expected " + std::to_string(configs_.size()) + ", got " +
                     std::to_string(state.list("queues").size()));
  }
  std::vector<QueueConfig> configs;
  for (const Value& queue : state.list("queues")) {
    configs.push_back(queueConfig(queue));
  }
  const auto deviceSelect = state.number<uint32_t>("deviceFeaturesSelect");
  const auto driverSelect = state.number<uint32_t>("driverFeaturesSelect");
  const auto queueSelect = state.number<uint32_t>("queueSelect");
  const auto interrupts = state.number<uint32_t>("interruptStatus");
  const auto generation = state.number<uint32_t>("configGeneration");
  const bool removed = state.boolean("removed");
  // Nothing throws from here on.
  std::lock_guard lock(mutex_);
  driverFeatures_ = features;
  deviceFeaturesSelect_ = deviceSelect;
  driverFeaturesSelect_ = driverSelect;
  queueSelect_ = queueSelect;
  interruptStatus_.store(interrupts, std::memory_order_release);
  configGeneration_.store(generation, std::memory_order_release);
  config_ = config;
  configs_ = std::move(configs);
  removed_ = removed;
  shutDown_ = removed;
  status_.store(status, std::memory_order_release);
}

void MmioTransport::applyQueues(const Value::List& queues) {
  size_t wrongQueue = 0;
  if (const char* wrong = configureQueues(configs_, wrongQueue)) {
    throw ValueError("queues: " + std::to_string(wrongQueue) + ": " + wrong);
  }
  for (size_t i = 0; i < queues.size(); i++) {
    const QueueState state{queues[i].number<uint16_t>("nextAvailable"),
                           queues[i].number<uint16_t>("nextUsed")};
    if (queues_[i].enabled()) {
      queues_[i].setState(state);
    }
  }
}

void MmioTransport::restore(const Value& state) {
  deactivate();
  paused_ = true;
  try {
    applyRegisters(state);
    const uint32_t status = status_.load();
    if (removed_ || (status & kDriverOk) == 0 || (status & (kNeedsReset | kFailed)) != 0) {
      return;
    }
    applyQueues(state.list("queues"));
    active_ = true;
    device_->restore(*this, state.at("device"));
  } catch (...) {
    if (active_) {
      active_ = false;
      device_->reset();
    }
    for (Queue& queue : queues_) {
      queue.disable();
    }
    std::lock_guard lock(mutex_);
    driverFeatures_ = 0;
    std::fill(configs_.begin(), configs_.end(), QueueConfig{});
    interruptStatus_ = 0;
    status_ = 0;
    throw;
  }
}

void MmioTransport::remove() {
  {
    std::lock_guard lock(mutex_);
    if (removed_) {
      return;
    }
    removed_ = true;
    shutDown_ = true;
    status_.fetch_or(kNeedsReset, std::memory_order_acq_rel);
  }
  deactivate();
  if ((status_.load() & kDriverOk) != 0) {
    interrupt(kConfigChange);
  }
}

}  // namespace tsvmm::virtio
