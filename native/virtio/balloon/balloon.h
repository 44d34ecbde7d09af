#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "virtio/device.h"

namespace tsvmm::virtio {

/// The memory balloon (virtio 1.2, 5.5). Pages that the driver puts into the balloon, or reports as free, are
/// given back to the host at once; a page that the guest uses again is filled with zeros on first touch, so
/// that deflating costs the device nothing. Whatever the guest does to its own memory meanwhile, the mapping
/// stays: a page that a device writes while it is given back is lost to the guest, and to nobody else.
class Balloon final : public Device {
 public:
  static constexpr uint16_t kInflateQueue = 0;
  static constexpr uint16_t kDeflateQueue = 1;
  static constexpr uint16_t kStatisticsQueue = 2;
  /// By the text (5.5.2). Linux counts only the queues of features that were negotiated, so that its
  /// reporting queue is number 3 or 2; both are understood.
  static constexpr uint16_t kReportingQueue = 4;

  static constexpr uint64_t kFeatureStatistics = uint64_t{1} << 1;    // VIRTIO_BALLOON_F_STATS_VQ
  static constexpr uint64_t kFeatureDeflateOnOom = uint64_t{1} << 2;  // VIRTIO_BALLOON_F_DEFLATE_ON_OOM
  static constexpr uint64_t kFeaturePoison = uint64_t{1} << 4;        // VIRTIO_BALLOON_F_PAGE_POISON
  static constexpr uint64_t kFeatureReporting = uint64_t{1} << 5;     // VIRTIO_BALLOON_F_PAGE_REPORTING

  /// Page numbers in one request: a Linux driver sends 256 at most. A longer request is returned unserved.
  static constexpr uint64_t kMaxPfns = 64 << 10;
  /// Of a statistics buffer, what is kept: 64 entries of 10 bytes.
  static constexpr size_t kMaxStatistics = 640;

  /// `target`: as in the configuration space that the driver first reads. `changed` is called, on the I/O
  /// thread, when actual() has changed or statistics have come.
  explicit Balloon(std::function<void()> changed = {}, uint32_t target = 0);
  ~Balloon() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override;
  Value save() override;
  void restore(Host& host, const Value& state) override;
  void configWritten(uint32_t offset, std::span<const uint8_t> bytes) override;

  // From any thread, also before activation:

  /// How many pages of 4 KiB the driver is asked to put into the balloon.
  void setTarget(uint32_t pages);
  uint32_t target();
  /// How many the driver says are in it.
  uint32_t actual() const { return actual_.load(std::memory_order_relaxed); }
  /// Asks the driver for its statistics; takeStatistics() has them once `changed` was called.
  void requestStatistics();
  /// The newest statistics as the driver wrote them (5.5.6.3), once; nothing if none have come.
  std::optional<std::vector<uint8_t>> takeStatistics();

 private:
  /// A request that is served piece by piece, so that other devices have their turn in between.
  struct Work {
    bool active = false;
    uint16_t queue = 0;
    Chain chain;
    size_t slice = 0;     ///< reporting: which of the chain's buffers
    uint64_t offset = 0;  ///< reporting: how much of it is done
  };

  void begin(Host& host);
  void visit();
  bool take();
  bool takeFrom(uint16_t index);
  /// True: the request is done.
  bool inflate();
  bool report();
  void discard(const GuestSlice& memory);
  void deflate();
  void takeStatisticsBuffers();
  void askStatistics();
  void tellTarget();
  void finishPause();
  bool checkBroken(uint16_t index);
  void complain(const std::string& what);
  void post(void (Balloon::*function)());

  const std::function<void()> changed_;
  Host* host_ = nullptr;
  std::shared_ptr<Balloon*> active_;  ///< posted functions hold it weakly: gone with a reset
  uint16_t reportingQueue_ = 0;       ///< 0: none
  bool statisticsQueue_ = false;
  Work work_;
  bool visitPosted_ = false;
  bool paused_ = false;
  std::function<void()> whenPaused_;
  std::optional<uint16_t> statisticsHead_;  ///< the buffer that goes back when statistics are wanted
  bool statisticsWanted_ = false;
  bool complained_ = false;
  std::atomic<uint32_t> actual_{0};
  /// The driver's part of the configuration space, from offset 4 on: actual, free_page_hint_cmd_id,
  /// poison_val.
  std::array<uint8_t, 12> driverConfig_{};
  bool staleConfig_ = false;  ///< the configuration space still shows the balloon of before a reset

  std::mutex mutex_;
  EventLoop* loop_ = nullptr;  ///< while active
  std::weak_ptr<Balloon*> posted_;
  uint32_t target_ = 0;
  bool targetChanged_ = false;
  bool statisticsRequested_ = false;
  std::optional<std::vector<uint8_t>> statistics_;
};

}  // namespace tsvmm::virtio
