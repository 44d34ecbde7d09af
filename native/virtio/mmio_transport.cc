#include "virtio/mmio_transport.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "virtio/mmio_registers.h"

namespace tsvmm::virtio {
namespace {

using namespace mmio;

// Making the kernel take the notifications costs a grace period, which a device that is hardly used is not
// worth.
constexpr uint32_t kExitsBeforeIoeventfd = 64;

// Writes to the configuration space that may wait for the I/O thread.
constexpr uint32_t kMaxConfigWrites = 64;

}  // namespace

MmioTransport::MmioTransport(Description description, std::shared_ptr<Device> device, EventLoop& loop,
                             const GuestMemory& memory, RaiseInterrupt raiseInterrupt,
                             AttachNotify attachNotify, Listener listener)
    : description_(std::move(description)),
      device_(std::move(device)),
      loop_(loop),
      memory_(memory),
      raiseInterrupt_(std::move(raiseInterrupt)),
      attachNotify_(std::move(attachNotify)),
      listener_(std::move(listener)),
      notify_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      configs_(description_.queueSizes.size()),
      config_(description_.config),
      queues_(description_.queueSizes.size()) {
  if (!notify_) {
    throw std::system_error(errno, std::generic_category(), "eventfd for a device's notifications");
  }
}

MmioTransport::~MmioTransport() { shutDown(); }

uint64_t MmioTransport::offeredFeatures() const {
  return description_.features | kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;
}

void MmioTransport::read(uint64_t offset, std::span<uint8_t> data) {
  if (offset >= kConfig) {
    readConfig(offset - kConfig, data);
    return;
  }
  // 4.2.2.2: the driver uses only 32-bit wide and aligned accesses here; others read as zero.
  std::memset(data.data(), 0, data.size());
  if (data.size() == 4 && offset % 4 == 0) {
    const uint32_t value = readRegister(offset);
    std::memcpy(data.data(), &value, sizeof value);
  }
}

void MmioTransport::write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset >= kConfig) {
    writeConfig(offset - kConfig, data);
  } else if (data.size() == 4 && offset % 4 == 0) {
    uint32_t value;
    std::memcpy(&value, data.data(), sizeof value);
    writeRegister(offset, value);
  }
}

uint32_t MmioTransport::readRegister(uint64_t offset) {
  switch (offset) {
    case kInterruptStatus:
      return interruptStatus_.load(std::memory_order_acquire);
    case kStatus:
      return status_.load(std::memory_order_acquire);
    case kMagicValue:
      return kMagic;
    case kVersion:
      return 2;
    case kDeviceId:
      return removed_ ? 0 : description_.deviceId;
    case kVendorId:
      return kVendor;
    case kConfigGeneration:
      return configGeneration_.load(std::memory_order_acquire);
    default:
      break;
  }
  std::lock_guard lock(mutex_);
  if (offset == kDeviceFeatures) {
    return deviceFeaturesSelect_ > 1
               ? 0
               : static_cast<uint32_t>(offeredFeatures() >> (32 * deviceFeaturesSelect_));
  }
  if (offset >= kShmLenLow && offset <= kShmBaseHigh) {
    return UINT32_MAX;  // 4.2.2: no such shared memory region
  }
  if (queueSelect_ < configs_.size()) {
    if (offset == kQueueNumMax) {
      return description_.queueSizes[queueSelect_];
    }
    if (offset == kQueueReady) {
      return configs_[queueSelect_].ready ? 1 : 0;
    }
  }
  return 0;
}

void MmioTransport::writeRegister(uint64_t offset, uint32_t value) {
  switch (offset) {
    case kQueueNotify:
      if (value < configs_.size()) {
        notified();
      }
      return;
    case kInterruptAck:
      interruptStatus_.fetch_and(~value, std::memory_order_acq_rel);
      return;
    case kStatus:
      writeStatus(value);
      return;
    default:
      break;
  }
  std::lock_guard lock(mutex_);
  const uint32_t status = status_.load(std::memory_order_relaxed);
  switch (offset) {
    case kDeviceFeaturesSel:
      deviceFeaturesSelect_ = value;
      break;
    case kDriverFeaturesSel:
      driverFeaturesSelect_ = value;
      break;
    case kDriverFeatures:
      // 3.1.1: features are settled once FEATURES_OK is set.
      if ((status & kFeaturesOk) == 0 && driverFeaturesSelect_ <= 1) {
        const unsigned shift = 32 * driverFeaturesSelect_;
        driverFeatures_ = (driverFeatures_ & ~(uint64_t{UINT32_MAX} << shift)) | (uint64_t{value} << shift);
      }
      break;
    case kQueueSel:
      queueSelect_ = value;
      break;
    default:
      // Queues are set up between FEATURES_OK and DRIVER_OK and frozen from then on.
      if ((status & kFeaturesOk) != 0 && (status & (kDriverOk | kFailed | kNeedsReset)) == 0 &&
          queueSelect_ < configs_.size()) {
        writeQueueRegister(offset, value);
      }
  }
}

void MmioTransport::writeQueueRegister(uint64_t offset, uint32_t value) {
  QueueConfig& queue = configs_[queueSelect_];
  const auto setLow = [value](uint64_t& address) { address = (address & ~uint64_t{UINT32_MAX}) | value; };
  const auto setHigh = [value](uint64_t& address) {
    address = (address & UINT32_MAX) | (uint64_t{value} << 32);
  };
  if (offset == kQueueReady) {
    queue.ready = (value & 1) != 0;
    return;
  }
  if (queue.ready) {
    return;  // 4.2.2.2: not changed while the queue is ready
  }
  switch (offset) {
    case kQueueNum:
      // What does not fit 16 bits must not wrap into something valid: 0 is refused on activation.
      queue.size = value <= UINT16_MAX ? static_cast<uint16_t>(value) : 0;
      break;
    case kQueueDescLow:
      setLow(queue.descriptors);
      break;
    case kQueueDescHigh:
      setHigh(queue.descriptors);
      break;
    case kQueueDriverLow:
      setLow(queue.available);
      break;
    case kQueueDriverHigh:
      setHigh(queue.available);
      break;
    case kQueueDeviceLow:
      setLow(queue.used);
      break;
    case kQueueDeviceHigh:
      setHigh(queue.used);
      break;
    default:
      break;
  }
}

void MmioTransport::writeStatus(uint32_t value) {
  std::unique_lock lock(mutex_);
  const uint32_t before = status_.load(std::memory_order_relaxed);
  if (shutDown_ || resetting_) {
    return;  // resetting: another vCPU waits below for the device, which must not start meanwhile
  }
  if (value == 0) {
    resetting_ = true;
    lock.unlock();
    // The driver may reuse its memory as soon as the write is done, so the device must be quiet by then.
    loop_.call([this] { deactivate(); });
    lock.lock();
    resetting_ = false;
    driverFeatures_ = 0;
    deviceFeaturesSelect_ = driverFeaturesSelect_ = queueSelect_ = 0;
    std::fill(configs_.begin(), configs_.end(), QueueConfig{});
    interruptStatus_.store(0, std::memory_order_release);
    status_.store(0, std::memory_order_release);
    lock.unlock();
    if (before != 0) {
      listener_(TransportEvent::kReset, {});
    }
    return;
  }
  // 2.1.1: the driver only adds bits, and NEEDS_RESET is the device's. Steps come in order.
  uint32_t next = before | (value & (kAcknowledge | kDriver | kFailed));
  if ((value & kFeaturesOk) != 0 && (before & kFeaturesOk) == 0 && (next & kDriver) != 0 &&
      (driverFeatures_ & ~offeredFeatures()) == 0 && (driverFeatures_ & kFeatureVersion1) != 0) {
    next |= kFeaturesOk;
  }
  const bool starts = (value & kDriverOk) != 0 && (before & kFeaturesOk) != 0 &&
                      (before & (kDriverOk | kNeedsReset | kFailed)) == 0;
  if (starts) {
    next |= kDriverOk;
  }
  status_.store(next, std::memory_order_release);
  if (starts) {
    loop_.post([this, configs = configs_] { activate(configs); });
  }
}

void MmioTransport::readConfig(uint64_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  std::memset(data.data(), 0, data.size());
  if (offset < config_.size()) {
    const size_t length = std::min<size_t>(data.size(), config_.size() - offset);
    std::memcpy(data.data(), config_.data() + offset, length);
  }
}

void MmioTransport::writeConfig(uint64_t offset, std::span<const uint8_t> data) {
  {
    std::lock_guard lock(mutex_);
    if (offset < description_.writableConfigOffset ||
        offset + data.size() >
            uint64_t{description_.writableConfigOffset} + description_.writableConfigLength ||
        offset + data.size() > config_.size()) {
      return;
    }
    std::memcpy(config_.data() + offset, data.data(), data.size());
  }
  if (configWritesPending_.fetch_add(1, std::memory_order_relaxed) >= kMaxConfigWrites) {
    loop_.call([] {});  // the driver is quicker than the device: it waits
  }
  loop_.post([this, offset, bytes = std::vector<uint8_t>(data.begin(), data.end())] {
    configWritesPending_.fetch_sub(1, std::memory_order_relaxed);
    if (active_) {
      device_->configWritten(static_cast<uint32_t>(offset), bytes);
    } else {
      configWrittenEarly_ = true;
    }
  });
}

void MmioTransport::notified() {
  const eventfd_t one = 1;
  (void)!::write(notify_.get(), &one, sizeof one);
  std::lock_guard lock(mutex_);
  if (++notificationExits_ == kExitsBeforeIoeventfd && attachNotify_) {
    loop_.post([this] {
      const int error = attachNotify_(notify_.get());
      if (error != 0) {
        log("notifications stay in user space: KVM_IOEVENTFD: " + std::generic_category().message(error));
      }
    });
  }
}

void MmioTransport::serveQueues() {
  device_->metrics.notifications.fetch_add(1, std::memory_order_relaxed);
  for (uint16_t i = 0; i < queues_.size() && active_; i++) {
    if (queues_[i].enabled() && !queues_[i].broken()) {
      device_->notify(i);
      if (active_ && queues_[i].broken()) {
        fail("queue " + std::to_string(i) + ": " + queues_[i].brokenReason());
      }
    }
  }
}

const char* MmioTransport::configureQueues(const std::vector<QueueConfig>& configs, size_t& wrongQueue) {
  for (size_t i = 0; i < configs.size(); i++) {
    if (!configs[i].ready) {
      queues_[i].disable();
      continue;
    }
    const char* wrong =
        queues_[i].configure(memory_, configs[i], description_.queueSizes[i], driverFeatures_);
    if (wrong != nullptr) {
      wrongQueue = i;
      return wrong;
    }
  }
  return nullptr;
}

void MmioTransport::activate(std::vector<QueueConfig> configs) {
  settleReset();
  size_t queue = 0;
  if (const char* wrong = configureQueues(configs, queue)) {
    fail("queue " + std::to_string(queue) + ": " + wrong);
    return;
  }
  active_ = true;
  device_->activate(*this);
  tellEarlyConfig();
  begin();
  listener_(TransportEvent::kActivated, {});
}

/// What the driver wrote to the configuration space before DRIVER_OK.
void MmioTransport::tellEarlyConfig() {
  if (!configWrittenEarly_ || !active_) {
    return;
  }
  configWrittenEarly_ = false;
  std::vector<uint8_t> bytes;
  {
    std::lock_guard lock(mutex_);
    const auto from = config_.begin() + description_.writableConfigOffset;
    bytes.assign(from, from + description_.writableConfigLength);
  }
  device_->configWritten(description_.writableConfigOffset, bytes);
}

void MmioTransport::settleReset() {
  if (resetOwed_) {
    resetOwed_ = false;
    device_->reset();
  }
  donePausing();
}

void MmioTransport::deactivate() {
  if (active_) {
    active_ = false;
    resetOwed_ = true;
    loop_.remove(notify_.get());
  }
  settleReset();
  for (Queue& queue : queues_) {
    queue.disable();
  }
}

void MmioTransport::shutDown() {
  {
    std::lock_guard lock(mutex_);
    shutDown_ = true;
  }
  deactivate();
}

void MmioTransport::interrupt(uint32_t cause) {
  interruptStatus_.fetch_or(cause, std::memory_order_acq_rel);
  raiseInterrupt_();
  device_->metrics.interrupts.fetch_add(1, std::memory_order_relaxed);
}

void MmioTransport::signalQueue(uint16_t index) {
  if (queues_[index].needsInterrupt()) {
    interrupt(kUsedBuffer);
  }
}

void MmioTransport::interruptDriver() { interrupt(kUsedBuffer); }

void MmioTransport::updateConfig(uint32_t offset, std::span<const uint8_t> bytes) {
  bool live;
  {
    std::lock_guard lock(mutex_);
    if (offset > config_.size() || bytes.size() > config_.size() - offset) {
      return;
    }
    std::memcpy(config_.data() + offset, bytes.data(), bytes.size());
    configGeneration_.fetch_add(1, std::memory_order_acq_rel);
    live = (status_.load(std::memory_order_relaxed) & kDriverOk) != 0;
  }
  if (live) {
    interrupt(kConfigChange);
  }
}

void MmioTransport::fail(const std::string& reason) {
  if (active_) {
    // The device may be in the middle of serving: it is reset once it has returned.
    active_ = false;
    resetOwed_ = true;
    loop_.remove(notify_.get());
    loop_.post([this] { settleReset(); });
  }
  for (Queue& queue : queues_) {
    queue.disable();
  }
  {
    std::lock_guard lock(mutex_);
    status_.fetch_or(kNeedsReset, std::memory_order_acq_rel);
  }
  device_->metrics.errors.fetch_add(1, std::memory_order_relaxed);
  interrupt(kConfigChange);
  listener_(TransportEvent::kFailed, reason);
}

void MmioTransport::log(const std::string& message) { listener_(TransportEvent::kLog, message); }

}  // namespace tsvmm::virtio
