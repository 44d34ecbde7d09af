#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "virtio/blk/disk.h"
#include "virtio/device.h"
#include "virtio/rate_limiter.h"

namespace tsvmm::virtio {

/// What the device promises the driver in its features and configuration space, enforced here.
struct BlkOptions {
  uint64_t sectors = 0;  ///< capacity in sectors of 512 bytes
  bool readOnly = false;
  std::string id;                       ///< what GET_ID answers, at most 20 bytes
  uint32_t maxDiscardSectors = 0;       ///< sectors in one segment of a DISCARD
  uint32_t maxDiscardSegments = 0;      ///< segments in one DISCARD
  uint32_t maxWriteZeroesSectors = 0;   ///< sectors in one segment of a WRITE_ZEROES
  uint32_t maxWriteZeroesSegments = 0;  ///< segments in one WRITE_ZEROES
  uint16_t queues = 1;                  ///< at most 32
  RateLimits limits{};
};

/// The block device's request queues (virtio 1.2, 5.2.6): any number of them, served alike.
class Blk final : public Device, private DiskClient {
 public:
  Blk(std::unique_ptr<Disk> disk, BlkOptions options);
  ~Blk() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override;
  /// {version, sectors, writeback}; nothing is in flight.
  Value save() override;
  /// Throws a ValueError where the disk is smaller than the one that was saved. A larger one is told to the
  /// driver with resume().
  void restore(Host& host, const Value& state) override;
  void configWritten(uint32_t offset, std::span<const uint8_t> bytes) override;

  // From any thread:

  /// Hears what has become of replace(), on any thread: whether the disk is in place (not where the device
  /// has gone first), and gets the one that is no longer used. Closing that may block.
  using Replaced = std::function<void(bool replaced, std::unique_ptr<Disk> unused)>;
  /// Puts another disk in the place of this one: once what is in flight has finished, and before anything
  /// that follows. The driver hears of a new capacity.
  void replace(std::unique_ptr<Disk> disk, uint64_t sectors, Replaced replaced);
  /// Closes the disk and with it lets go of its lock, for good. False, and nothing done, while the device is
  /// active.
  bool close();
  /// Capacity in sectors of 512 bytes.
  uint64_t sectors();

 private:
  struct Request : DiskRequest {
    Chain chain;
    uint16_t queue = 0;
    uint32_t command = 0;
    size_t slot = 0;  ///< where it is in inFlight_
  };
  struct Replacement {
    std::unique_ptr<Disk> disk;
    uint64_t sectors;
    Replaced done;
  };

  bool serve(uint16_t index, Chain& chain);
  /// Reads the header and prepares the request. Nothing: go on to the disk; else the status that answers the
  /// request at once.
  std::optional<uint8_t> prepare(Request& request);
  std::optional<uint8_t> prepareTransfer(Request& request, uint64_t sector);
  std::optional<uint8_t> prepareRanges(Request& request);
  uint8_t writeId(Request& request);
  bool insideDisk(uint64_t sector, uint64_t sectors) const;
  /// Without a cache that a FLUSH would empty, each write is durable by itself (5.2.5.2, 5.2.6.2).
  bool writesThrough() const;
  /// Maps the disk's outcome to a status and counts it.
  uint8_t statusOf(Request& request);
  /// Writes the status, returns the chain and the request.
  void answer(Request& request, uint8_t status);
  void finished(DiskRequest& request) override;
  void settled() override;
  void come(uint16_t index);
  void comeToAll();
  std::unique_ptr<Request> takeRequest();
  void keep(std::unique_ptr<Request> request);
  void report(const Request& request);

  // blk_life.cc:
  bool held() const { return paused_ || replacing_; }
  void awaitLimiter(uint16_t index);
  void replaceWhenIdle();
  void replaceSoon();
  /// Puts what replace() was given in place; what it was is in the result. With mutex_.
  std::vector<Replacement> install();
  static void tell(std::vector<Replacement> replaced);
  void tellCapacity();

  const BlkOptions options_;
  Host* host_ = nullptr;
  std::shared_ptr<Blk*> active_;  ///< posted functions hold it weakly: gone with a reset
  uint64_t features_ = 0;
  bool writeback_ = true;
  uint64_t movedAtOnce_ = 0;
  std::vector<std::unique_ptr<Request>> inFlight_;
  std::vector<std::unique_ptr<Request>> spare_;
  uint32_t touched_ = 0;  ///< queues with answers that the driver has not been told of
  std::chrono::steady_clock::time_point nextReport_{};

  RateLimiter limiter_;
  uint32_t throttled_ = 0;  ///< queues that wait for the limiter
  EventLoop::TimerId limiterTimer_ = 0;

  bool paused_ = false;
  std::function<void()> pauseDone_;
  bool replacing_ = false;

  std::mutex mutex_;  // what replace() and close() touch, which come from another thread
  std::unique_ptr<Disk> disk_;
  uint64_t sectors_;
  uint64_t toldSectors_;  ///< what the configuration space says
  std::vector<Replacement> replacements_;
  EventLoop* loop_ = nullptr;  ///< while active
  std::weak_ptr<Blk*> posting_;
};

}  // namespace tsvmm::virtio
