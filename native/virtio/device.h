#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/event_loop.h"
#include "io/value.h"
#include "memory/guest_memory.h"
#include "virtio/queue.h"

namespace tsvmm::virtio {

inline constexpr uint64_t kFeatureIndirect = uint64_t{1} << 28;    // VIRTIO_F_INDIRECT_DESC
inline constexpr uint64_t kFeatureEventIndex = uint64_t{1} << 29;  // VIRTIO_F_EVENT_IDX
inline constexpr uint64_t kFeatureVersion1 = uint64_t{1} << 32;    // VIRTIO_F_VERSION_1

/// What every device counts; read from any thread.
struct Metrics {
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> bytesRead{0};     ///< from the guest's point of view
  std::atomic<uint64_t> bytesWritten{0};  ///< from the guest's point of view
  std::atomic<uint64_t> errors{0};
  std::atomic<uint64_t> interrupts{0};
  std::atomic<uint64_t> notifications{0};
};

/// What the transport gives a device. All calls on the I/O thread.
class Host {
 public:
  virtual ~Host() = default;
  virtual EventLoop& loop() = 0;
  virtual const GuestMemory& memory() = 0;
  /// The queues; those the driver did not set up are not enabled().
  virtual Queue& queue(uint16_t index) = 0;
  virtual uint64_t features() = 0;
  /// Interrupts the driver if it wants to hear of what was pushed to the queue.
  virtual void signalQueue(uint16_t index) = 0;
  /// Interrupts the driver for used buffers whatever the native queue knows: for a device that serves the
  /// rings itself.
  virtual void interruptDriver() {}
  /// Replaces bytes of the configuration space and tells the driver (configuration change notification).
  virtual void updateConfig(uint32_t offset, std::span<const uint8_t> bytes) = 0;
  /// The device cannot go on: sets DEVICE_NEEDS_RESET, tells the driver and the log. The queues are not
  /// served until reset.
  virtual void fail(const std::string& reason) = 0;
  /// A line for the machine's log.
  virtual void log(const std::string& message) = 0;
};

/// A virtio device's hot path: what it does per request. What it *is* (id, features, queue sizes,
/// configuration space) is described in TypeScript and handed to the transport. Every method runs on the I/O
/// thread; none may block.
class Device {
 public:
  virtual ~Device() = default;
  /// The driver has set DRIVER_OK. `host` stays valid until reset() or destruction.
  virtual void activate(Host& host) = 0;
  /// The driver has notified queue `index` (which is enabled), or the transport found it worth a look.
  virtual void notify(uint16_t index) = 0;
  /// The driver has reset the device: forget the host, the queues and every chain. When it returns, nothing
  /// of the device touches guest memory any more.
  virtual void reset() = 0;
  /// Suspends processing: from now on the device takes no chain, writes no guest memory and interrupts nobody
  /// by itself, and calls `paused` once that is so: when the requests that it had taken have been answered. A
  /// chain that it holds for later (a buffer to receive into, a request that waits for a lock) it may keep.
  /// The transport hands on no notifications meanwhile. reset() may come before `paused`, which is then not
  /// called.
  virtual void pause(std::function<void()> paused) { paused(); }
  /// Ends pause(), also before it was done. The transport then notifies every enabled queue.
  virtual void resume() {}
  /// What a device like this one needs beyond its registers, configuration space and queues to go on where
  /// this one stands: a record with a `version`, or null where there is nothing. While paused and active.
  /// Chains that it keeps are named by their heads.
  virtual Value save() { return {}; }
  /// Instead of activate(): goes on, paused, from what save() has returned. The queues are as they were;
  /// chains that were kept are taken again by Queue::reopen(). Throws a ValueError where `state` is wrong:
  /// the device is then as after reset().
  virtual void restore(Host& host, const Value& /*state*/) { activate(host); }
  /// The machine is being taken down by the JavaScript thread: end every wait for it. reset() follows. On
  /// that thread.
  virtual void abandon() {}
  /// The driver wrote to the configuration space.
  virtual void configWritten(uint32_t /*offset*/, std::span<const uint8_t> /*bytes*/) {}

  Metrics metrics;
};

}  // namespace tsvmm::virtio
