#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "virtio/blk/disk.h"
#include "virtio/device.h"

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
};

/// The block device's request queues (virtio 1.2, 5.2.6): any number of them, served alike.
class Blk final : public Device {
 public:
  Blk(std::unique_ptr<Disk> disk, BlkOptions options);
  ~Blk() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;

  /// Closes the disk and with it lets go of its lock, for good. False, and nothing done, while the device is
  /// active. Not while the loop may call the device.
  bool close();

 private:
  struct Request {
    DiskRequest disk;
    Chain chain;
    uint16_t queue = 0;
    uint32_t type = 0;
  };

  bool serve(uint16_t index, Chain& chain);
  /// Reads the header and prepares `request.disk`. Nothing: go on to the disk; else the status that answers
  /// the request at once.
  std::optional<uint8_t> prepare(Request& request);
  std::optional<uint8_t> prepareTransfer(Request& request, uint64_t sector);
  std::optional<uint8_t> prepareRanges(Request& request);
  uint8_t writeId(Request& request);
  bool insideDisk(uint64_t sector, uint64_t sectors) const;
  /// Maps the disk's outcome to a status and counts it.
  uint8_t statusOf(Request& request);
  /// Writes the status, returns the chain and the request.
  void answer(Request& request, uint8_t status);
  void finished(DiskRequest& request);
  void come(uint16_t index);
  std::unique_ptr<Request> takeRequest();
  void report(const Request& request);

  std::unique_ptr<Disk> disk_;
  const BlkOptions options_;
  Host* host_ = nullptr;
  std::shared_ptr<Blk*> active_;  ///< posted functions hold it weakly: gone with a reset
  uint64_t features_ = 0;
  uint64_t movedAtOnce_ = 0;
  std::vector<std::unique_ptr<Request>> inFlight_;
  std::vector<std::unique_ptr<Request>> spare_;
  std::chrono::steady_clock::time_point nextReport_{};
};

}  // namespace tsvmm::virtio
