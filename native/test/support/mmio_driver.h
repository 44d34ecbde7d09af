#pragma once

#include "support/ring.h"
#include "support/settle.h"
#include "virtio/mmio_registers.h"
#include "virtio/mmio_transport.h"

namespace tsvmm::test {

/// A driver's side of the virtio-mmio register block, and the I/O thread behind it. `transport` is the test's
/// to make, and close() to be called before what it uses goes.
struct MmioDriver {
  void close() {
    loop.stop();
    transport.reset();
  }

  uint32_t get(uint64_t offset) {
    uint32_t value = 0;
    transport->read(offset, {reinterpret_cast<uint8_t*>(&value), 4});
    return value;
  }
  void set(uint64_t offset, uint32_t value) {
    transport->write(offset, {reinterpret_cast<const uint8_t*>(&value), 4});
  }
  void address(uint64_t offset, uint64_t value) {
    set(offset, static_cast<uint32_t>(value));
    set(offset + 4, static_cast<uint32_t>(value >> 32));
  }
  void features(uint64_t value) {
    set(virtio::mmio::kDriverFeaturesSel, 0);
    set(virtio::mmio::kDriverFeatures, static_cast<uint32_t>(value));
    set(virtio::mmio::kDriverFeaturesSel, 1);
    set(virtio::mmio::kDriverFeatures, static_cast<uint32_t>(value >> 32));
  }
  void setUpQueue(uint32_t index, const virtio::QueueConfig& config) {
    set(virtio::mmio::kQueueSel, index);
    set(virtio::mmio::kQueueNum, config.size);
    address(virtio::mmio::kQueueDescLow, config.descriptors);
    address(virtio::mmio::kQueueDriverLow, config.available);
    address(virtio::mmio::kQueueDeviceLow, config.used);
    set(virtio::mmio::kQueueReady, 1);
  }
  /// From reset to DRIVER_OK.
  void start(const std::vector<DriverRing*>& rings, uint64_t wanted = virtio::kFeatureVersion1) {
    set(virtio::mmio::kStatus, 1);
    set(virtio::mmio::kStatus, 3);
    features(wanted);
    set(virtio::mmio::kStatus, 11);
    for (uint32_t i = 0; i < rings.size(); i++) {
      setUpQueue(i, rings[i]->config());
    }
    set(virtio::mmio::kStatus, 15);
    settle();
  }
  void settle() { test::settle(loop); }

  EventLoop loop;
  std::unique_ptr<virtio::MmioTransport> transport;
};

}  // namespace tsvmm::test
