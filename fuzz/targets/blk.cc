// The block device's requests (native/virtio/blk/blk.cc), on a disk of 64 KiB in memory.
#include "virtio/blk/blk.h"

#include "support/driver.h"

using namespace tsvmm;
using namespace tsvmm::virtio;

namespace {

class MemoryDisk final : public Disk {
 public:
  static constexpr uint64_t kSize = 64 << 10;

  void attach(EventLoop&, DiskClient&) override {}
  bool submit(DiskRequest& request) override {
    uint64_t at = request.offset;
    for (const iovec& part : request.parts) {
      if (at > kSize || part.iov_len > kSize - at) {
        __builtin_trap();  // the device has to keep it inside the disk
      }
      if (request.type == DiskRequest::Type::kRead) {
        std::memcpy(part.iov_base, bytes_.data() + at, part.iov_len);
      } else {
        std::memcpy(bytes_.data() + at, part.iov_base, part.iov_len);
      }
      at += part.iov_len;
    }
    request.done = at - request.offset;
    for (const DiskRequest::Range& range : request.ranges) {
      if (range.offset > kSize || range.length > kSize - range.offset) {
        __builtin_trap();
      }
      std::fill_n(bytes_.begin() + static_cast<long>(range.offset), range.length, uint8_t{0});
    }
    return true;
  }
  void kick() override {}
  void detach() override {}

 private:
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(kSize);
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::Driver driver(
      [] {
        return std::make_shared<Blk>(std::make_unique<MemoryDisk>(),
                                     BlkOptions{.sectors = MemoryDisk::kSize / 512,
                                                .id = "fuzz",
                                                .maxDiscardSectors = 64,
                                                .maxDiscardSegments = 4,
                                                .maxWriteZeroesSectors = 64,
                                                .maxWriteZeroesSegments = 4,
                                                .queues = 2});
      },
      {16, 16}, ~uint64_t{0} >> 40);
  return driver.play(data, size);
}
