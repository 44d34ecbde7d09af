#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/bus.h"
#include "io/event_loop.h"
#include "io/fd.h"
#include "virtio/device.h"

namespace tsvmm::virtio {

/// What a device is, as TypeScript describes it.
struct Description {
  std::string name;
  uint32_t deviceId = 0;
  uint64_t features = 0;  ///< beyond those that the transport offers for every device
  std::vector<uint16_t> queueSizes;
  std::vector<uint8_t> config;
  uint32_t writableConfigOffset = 0;
  uint32_t writableConfigLength = 0;
};

/// What the machine wants to hear of a transport.
enum class TransportEvent { kActivated, kReset, kFailed, kLog };

/// The virtio-mmio register block (virtio 1.2, 4.2.2) as a state machine, and the device's `Host`. Registers
/// are served on vCPU threads, everything of the device on the I/O thread.
class MmioTransport : public BusDevice, public Host {
 public:
  static constexpr uint64_t kSize = 0x200;
  using Listener = std::function<void(TransportEvent, const std::string& message)>;
  /// Makes the kernel signal `fd` when the guest writes to the notify register; 0 or an errno.
  using AttachNotify = std::function<int(int fd)>;
  /// Raises the device's interrupt once, as an edge, without waiting. From one thread at a time.
  using RaiseInterrupt = std::function<void()>;

  MmioTransport(Description description, std::shared_ptr<Device> device, EventLoop& loop,
                const GuestMemory& memory, RaiseInterrupt raiseInterrupt, AttachNotify attachNotify,
                Listener listener);
  ~MmioTransport() override;

  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

  /// Ends the device: as a reset by the driver, and no register write revives it. On the I/O thread or when
  /// it has stopped.
  void shutDown();

  // A device's life beside its driver; on the I/O thread or when it does not run (mmio_transport_state.cc).

  /// Suspends the device: `paused` is called, on the loop, once it neither serves its queues nor interrupts.
  /// Notifications are kept for resume(). A driver that resets or activates it meanwhile is served.
  void pause(std::function<void()> paused);
  /// Goes on, also where pause() is not done yet (its callback is not called then).
  void resume();
  /// Everything of registers, configuration space, queues and device, as a record. While paused.
  Value save();
  /// Stands as the transport that save() was called on, paused, over the same guest memory. Throws a
  /// ValueError that names the field; the device is then as after a reset.
  void restore(const Value& state);
  /// The device is gone for the driver, which is told as it can be (DEVICE_NEEDS_RESET): its registers read
  /// as those of no device (device ID 0, virtio 1.2, 4.2.2), and nothing revives it.
  void remove();

  const Description& description() const { return description_; }
  Device& device() { return *device_; }

  EventLoop& loop() override { return loop_; }
  const GuestMemory& memory() override { return memory_; }
  Queue& queue(uint16_t index) override { return queues_[index]; }
  uint64_t features() override { return driverFeatures_; }
  void signalQueue(uint16_t index) override;
  void interruptDriver() override;
  void updateConfig(uint32_t offset, std::span<const uint8_t> bytes) override;
  void fail(const std::string& reason) override;
  void log(const std::string& message) override;

 private:
  uint32_t readRegister(uint64_t offset);
  void writeRegister(uint64_t offset, uint32_t value);
  void readConfig(uint64_t offset, std::span<uint8_t> data);
  void writeConfig(uint64_t offset, std::span<const uint8_t> data);
  void writeStatus(uint32_t value);
  void writeQueueRegister(uint64_t offset, uint32_t value);
  uint64_t offeredFeatures() const;
  void notified();
  void serveQueues();
  void interrupt(uint32_t cause);

  // On the I/O thread:
  void activate(std::vector<QueueConfig> configs);
  void deactivate();
  void settleReset();
  void tellEarlyConfig();
  const char* configureQueues(const std::vector<QueueConfig>& configs, size_t& wrongQueue);
  void begin();
  void donePausing();
  void applyRegisters(const Value& state);
  void applyQueues(const Value::List& queues);

  const Description description_;
  const std::shared_ptr<Device> device_;
  EventLoop& loop_;
  const GuestMemory& memory_;
  const RaiseInterrupt raiseInterrupt_;
  const AttachNotify attachNotify_;
  const Listener listener_;
  Fd notify_;

  std::mutex mutex_;  // the registers below
  std::atomic<uint32_t> status_{0};
  uint32_t deviceFeaturesSelect_ = 0;
  uint32_t driverFeaturesSelect_ = 0;
  uint64_t driverFeatures_ = 0;
  uint32_t queueSelect_ = 0;
  std::vector<QueueConfig> configs_;
  std::vector<uint8_t> config_;
  std::atomic<uint32_t> configGeneration_{0};
  std::atomic<uint32_t> interruptStatus_{0};
  std::atomic<uint32_t> configWritesPending_{0};
  uint32_t notificationExits_ = 0;
  bool shutDown_ = false;
  bool resetting_ = false;
  std::atomic<bool> removed_{false};

  // The I/O thread's:
  std::vector<Queue> queues_;
  bool active_ = false;
  bool configWrittenEarly_ = false;
  bool resetOwed_ = false;  ///< fail() has cut the device off, which has yet to be told
  bool paused_ = false;
  std::function<void()> pauseDone_;    ///< until the device is at rest
  std::shared_ptr<int> pauseAttempt_;  ///< held weakly by what the device was given to call
};

}  // namespace tsvmm::virtio
