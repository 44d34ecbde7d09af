#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace tsvmm {

/// Something at a range of ports or guest physical addresses. Called on vCPU threads, by several at once.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  /// Fills `data` (1, 2, 4 or 8 bytes) with what the guest reads at `offset` from the start of the range.
  virtual void read(uint64_t offset, std::span<uint8_t> data) = 0;
  virtual void write(uint64_t offset, std::span<const uint8_t> data) = 0;
};

/// Maps ports or guest physical addresses to devices. Filled before the first vCPU runs and unchanged from
/// then on, so that looking up takes no lock.
class Bus {
 public:
  /// Claims `[base, base + length)`. Throws std::invalid_argument where it is empty, wraps, or meets another
  /// range.
  void insert(uint64_t base, uint64_t length, std::shared_ptr<BusDevice> device);

  /// An address that nobody has claimed reads as all ones.
  void read(uint64_t address, std::span<uint8_t> data) const;
  /// A write to an address that nobody has claimed is dropped.
  void write(uint64_t address, std::span<const uint8_t> data) const;

 private:
  struct Range {
    uint64_t base;
    uint64_t length;
    std::shared_ptr<BusDevice> device;
  };
  const Range* find(uint64_t address, size_t length) const;

  std::vector<Range> ranges_;
};

}  // namespace tsvmm
