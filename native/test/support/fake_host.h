#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "support/ring.h"
#include "virtio/device.h"

namespace tsvmm::test {

/// A transport for tests: a running I/O thread, queues configured from driver rings, and counts of what the
/// device told it. Use it from the test's thread; `run()` goes to the I/O thread, where a device belongs.
class FakeHost final : public virtio::Host {
 public:
  static constexpr uint64_t kDefaultFeatures = virtio::kFeatureVersion1 | virtio::kFeatureIndirect;

  FakeHost(GuestRam& ram, std::vector<DriverRing*> rings, uint64_t features = kDefaultFeatures)
      : ram_(ram), rings_(std::move(rings)), features_(features), signals_(rings_.size()) {
    configureQueues();
    loop_.start();
  }
  ~FakeHost() override { loop_.stop(); }

  /// Runs `function` on the I/O thread and returns when it has.
  template <typename F>
  void run(F&& function) {
    loop_.call([&] { function(); });
  }
  void activate(virtio::Device& device) {
    run([&] { device.activate(*this); });
  }
  void notify(virtio::Device& device, uint16_t index) {
    run([&] { device.notify(index); });
  }
  void reset(virtio::Device& device) {
    run([&] { device.reset(); });
  }
  /// Configures the queues afresh, as after a reset: with new rings, which start at index 0 as the queues do.
  void replaceRings(std::vector<DriverRing*> rings) {
    run([&] {
      rings_ = std::move(rings);
      configureQueues();
    });
  }

  /// The same rings from index 0; on the I/O thread.
  void reconfigure() { configureQueues(); }
  /// What the driver accepts from the next configuration of the queues on.
  void setFeatures(uint64_t features) {
    run([&] { features_ = features; });
  }

  /// Waits until `condition` (evaluated on the I/O thread whenever the device tells the driver something)
  /// holds; false after ten seconds, which only a failing test waits for.
  template <typename F>
  bool waitUntil(F&& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (true) {
      uint64_t before;
      {
        std::lock_guard lock(mutex_);
        before = told_;
      }
      bool holds = false;
      run([&] { holds = condition(); });
      if (holds) {
        return true;
      }
      std::unique_lock lock(mutex_);
      // Not everything a condition may look at is told: look again now and then.
      condition_.wait_for(lock, std::chrono::milliseconds(5), [&] { return told_ != before; });
      if (std::chrono::steady_clock::now() > deadline) {
        return false;
      }
    }
  }

  EventLoop& loop() override { return loop_; }
  const GuestMemory& memory() override { return ram_.memory; }
  virtio::Queue& queue(uint16_t index) override { return queues_.at(index); }
  uint64_t features() override { return features_; }
  void signalQueue(uint16_t index) override {
    if (queues_.at(index).needsInterrupt()) {
      signals_.at(index)++;
    }
    tell();
  }
  void interruptDriver() override {
    driverInterrupts++;
    tell();
  }
  void updateConfig(uint32_t offset, std::span<const uint8_t> bytes) override {
    if (config.size() < offset + bytes.size()) {
      config.resize(offset + bytes.size());
    }
    std::copy(bytes.begin(), bytes.end(), config.begin() + offset);
    configUpdates++;
    tell();
  }
  void fail(const std::string& reason) override {
    failures.push_back(reason);
    tell();
  }
  void log(const std::string& message) override {
    logs.push_back(message);
    tell();
  }

  /// Interrupts that the driver wanted and got for a queue.
  uint64_t interrupts(uint16_t index) {
    uint64_t count = 0;
    run([&] { count = signals_.at(index); });
    return count;
  }

  // Read them in run(), or after the device has come to rest.
  std::vector<uint8_t> config;
  int configUpdates = 0;
  uint64_t driverInterrupts = 0;  ///< by interruptDriver()
  std::vector<std::string> failures;
  std::vector<std::string> logs;

 private:
  void configureQueues() {
    queues_.clear();
    queues_.resize(rings_.size());
    for (size_t i = 0; i < rings_.size(); i++) {
      if (rings_[i] != nullptr) {
        const char* wrong = queues_[i].configure(ram_.memory, rings_[i]->config(), 32768, features_);
        if (wrong != nullptr) {
          throw std::runtime_error(std::string("queue: ") + wrong);
        }
      }
    }
  }

  void tell() {
    std::lock_guard lock(mutex_);
    told_++;
    condition_.notify_all();
  }

  GuestRam& ram_;
  std::vector<DriverRing*> rings_;
  uint64_t features_;
  EventLoop loop_;
  std::vector<virtio::Queue> queues_;
  std::vector<uint64_t> signals_;
  std::mutex mutex_;
  std::condition_variable condition_;
  uint64_t told_ = 0;
};

}  // namespace tsvmm::test
