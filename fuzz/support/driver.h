#pragma once

#include <csignal>
#include <memory>
#include <vector>

#include "support/fake_host.h"
#include "support/input.h"
#include "support/ring.h"
#include "virtio/device.h"

namespace tsvmm::fuzz {

/// A driver that does to a device what the fuzzer's bytes say: queues chains of every shape, notifies,
/// resets, pauses, saves and restores, in any order. What it must not manage is to crash the device, to make
/// it loop, or to have a chain returned that it did not queue.
class Driver {
 public:
  using MakeDevice = std::function<std::shared_ptr<virtio::Device>()>;
  /// `configLength`: bytes of the configuration space that the driver may write.
  Driver(MakeDevice make, std::vector<uint16_t> queueSizes, uint64_t features, uint32_t configLength = 0)
      : make_(std::move(make)),
        queueSizes_(std::move(queueSizes)),
        features_(features),
        configLength_(configLength),
        host_(ram_, std::vector<test::DriverRing*>(queueSizes_.size())) {
    std::signal(SIGPIPE, SIG_IGN);
  }

  int play(const uint8_t* data, size_t size) {
    Input input(data, size);
    // Of the features that are offered any may be accepted; version 1 always is.
    const uint64_t accepted =
        (features_ | virtio::kFeatureIndirect | virtio::kFeatureEventIndex) & input.take<uint64_t>();
    host_.setFeatures(accepted | virtio::kFeatureVersion1);
    device_ = make_();
    start();
    while (!input.done() && steps_-- > 0) {
      step(input);
    }
    host_.run([&] {
      device_->resume();
      device_->reset();
    });
    host_.run([] {});  // what was posted finds a device that is gone
    device_.reset();
    return 0;
  }

  test::GuestRam& ram() { return ram_; }

 private:
  static constexpr int kMaxSteps = 200;

  void start() {
    steps_ = kMaxSteps;
    ram_.freeAll();
    rings_.clear();
    std::vector<test::DriverRing*> pointers;
    for (const uint16_t size : queueSizes_) {
      rings_.push_back(std::make_unique<test::DriverRing>(ram_, size));
      pointers.push_back(rings_.back().get());
    }
    nextDescriptor_.assign(queueSizes_.size(), 0);
    area_ = ram_.alloc(kArea);
    host_.replaceRings(pointers);
    host_.failures.clear();
    host_.logs.clear();
    host_.activate(*device_);
  }

  void step(Input& input) {
    const auto queue = static_cast<uint16_t>(input.below(static_cast<uint32_t>(rings_.size())));
    switch (input.byte() % 16) {
      case 0:
        host_.reset(*device_);
        start();
        break;
      case 1:
        host_.run([&] { device_->pause([] {}); });
        break;
      case 2:
        host_.run([&] { device_->resume(); });
        break;
      case 3:
        renew();
        break;
      case 4: {
        const uint32_t offset = input.below(configLength_ + 1);
        const auto bytes = input.takeBytes(input.below(configLength_ - offset + 1));
        host_.run([&] { device_->configWritten(offset, bytes); });
        break;
      }
      case 5:
        rings_[queue]->setAvailableIndex(input.take<uint16_t>());
        notify(queue);
        break;
      case 6:
        rings_[queue]->pushAvailable(input.take<uint16_t>());
        notify(queue);
        break;
      case 7:
        rings_[queue]->setUsedEvent(input.take<uint16_t>());
        break;
      case 8:
      case 9:
        notify(queue);
        break;
      default:
        offer(queue, input);
        break;
    }
  }

  void notify(uint16_t queue) {
    host_.run([&] {
      if (host_.queue(queue).enabled() && !host_.queue(queue).broken()) {
        device_->notify(queue);
      }
    });
  }

  /// Saves, and goes on with another device from what was saved.
  void renew() {
    bool paused = false;
    host_.run([&] { device_->pause([&] { paused = true; }); });
    if (!paused) {
      return;  // it waits for somebody
    }
    host_.run([&] {
      const Value state = device_->save();
      device_->reset();
      auto next = make_();
      // What it had kept in flight it takes again by itself.
      std::vector<virtio::QueueState> positions;
      for (uint16_t i = 0; i < rings_.size(); i++) {
        positions.push_back(host_.queue(i).state());
      }
      host_.reconfigure();
      for (uint16_t i = 0; i < rings_.size(); i++) {
        host_.queue(i).setState(positions[i]);
      }
      try {
        next->restore(host_, state);
      } catch (const ValueError&) {
        // A driver that has changed what was in flight meanwhile; as after a reset.
        next->reset();
        next->activate(host_);
      }
      next->resume();
      device_ = std::move(next);
    });
  }

  /// A chain of up to seven descriptors, direct or indirect, its bytes the fuzzer's own.
  void offer(uint16_t queue, Input& input) {
    const uint8_t shape = input.byte();
    const uint32_t count = 1 + (shape & 7u);
    const bool indirect = (shape & 8) != 0;
    const bool wild = (shape & 16) != 0;
    const uint32_t writableFrom = (shape >> 5) % (count + 1);
    test::DriverRing& ring = *rings_[queue];
    const uint16_t size = queueSizes_[queue];
    const uint64_t table = area_ + kTables + 256u * (nextTable_++ % 64);
    uint16_t first = static_cast<uint16_t>(nextDescriptor_[queue] % size);
    for (uint32_t i = 0; i < count; i++) {
      uint64_t address = area_ + kData + (dataAt_ % kDataSize);
      uint32_t length = input.take<uint16_t>() & 0x3fff;
      if (wild) {
        const uint8_t kind = input.byte();
        if ((kind & 7) == 0) {
          address = input.take<uint64_t>();
        } else if ((kind & 7) == 1) {
          length = input.take<uint32_t>();
        } else if ((kind & 7) == 2) {
          address = ring.config().used + input.byte();
        }
      }
      const bool writable = i >= writableFrom;
      if (!writable) {
        const auto bytes = input.takeBytes(std::min<size_t>(length, input.left()));
        if (const auto slice = ram_.memory.slice(address, bytes.size()); slice && address >= area_) {
          slice->write(0, bytes.data(), bytes.size());
        }
      }
      dataAt_ += length;
      const bool last = i + 1 == count;
      uint16_t flags = writable ? test::kDescriptorWrite : 0;
      if (!last) {
        flags |= test::kDescriptorNext;
      }
      if (indirect) {
        ring.writeDescriptorAt(table + 16 * i, address, length, flags, static_cast<uint16_t>(i + 1));
      } else {
        const auto at = static_cast<uint16_t>((first + i) % size);
        ring.writeDescriptor(at, address, length, flags, static_cast<uint16_t>((at + 1) % size));
      }
    }
    if (indirect) {
      ring.writeDescriptor(first, table, 16 * count, test::kDescriptorIndirect, 0);
    }
    nextDescriptor_[queue] += indirect ? 1 : count;
    ring.pushAvailable(first);
    notify(queue);
  }

  static constexpr uint64_t kTables = 0;
  static constexpr uint64_t kData = 64 * 256;
  static constexpr uint64_t kDataSize = 1 << 20;
  static constexpr uint64_t kArea = kData + kDataSize + (1 << 16);

  const MakeDevice make_;
  const std::vector<uint16_t> queueSizes_;
  const uint64_t features_;
  const uint32_t configLength_;
  test::GuestRam ram_;
  test::FakeHost host_;
  std::vector<std::unique_ptr<test::DriverRing>> rings_;
  std::vector<uint32_t> nextDescriptor_;
  std::shared_ptr<virtio::Device> device_;
  uint64_t area_ = 0;
  uint64_t dataAt_ = 0;
  uint32_t nextTable_ = 0;
  int steps_ = 0;
};

}  // namespace tsvmm::fuzz
