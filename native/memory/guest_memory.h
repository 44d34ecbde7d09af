#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/fd.h"

namespace tsvmm {

/// A checked piece of guest RAM: `[address, address + size)` lies wholly in one region. The guest may change
/// its bytes at any time, so a value that is checked must be copied out first.
class GuestSlice {
 public:
  GuestSlice() = default;

  size_t size() const { return size_; }
  /// Copies out; `offset + length` must be within size().
  void read(size_t offset, void* to, size_t length) const { std::memcpy(to, data_ + offset, length); }
  void write(size_t offset, const void* from, size_t length) const {
    std::memcpy(data_ + offset, from, length);
  }
  void fill(uint8_t value) const { std::memset(data_, value, size_); }
  /// The first `length` bytes from `offset` on; clamped to the slice.
  GuestSlice part(size_t offset, size_t length) const {
    const size_t from = std::min(offset, size_);
    return {data_ + from, std::min(length, size_ - from)};
  }
  /// For system calls that move bytes (readv, sendmsg, io_uring): the kernel takes the guest's races, C++
  /// does not look.
  iovec unsafeIovec() const { return {data_, size_}; }
  uint8_t* unsafeData() const { return data_; }

 private:
  friend class GuestMemory;
  GuestSlice(uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// Guest physical memory. RAM regions are mapped once and stay where they are for the life of the object, so
/// a slice remains valid as long as the GuestMemory does.
class GuestMemory {
 public:
  enum class Backing { kAnonymous, kMemfd };
  struct RegionSpec {
    uint64_t address;
    uint64_t size;
  };
  struct Region {
    uint64_t address;
    uint64_t size;
    uint8_t* host;
    uint64_t fileOffset;  ///< in the memfd, where there is one
  };
  struct Options {
    Backing backing = Backing::kAnonymous;
    bool hugePages = true;  ///< ask for transparent huge pages
  };

  /// Regions must be page aligned, ascending and must not overlap. Throws std::invalid_argument or
  /// std::system_error.
  GuestMemory(const std::vector<RegionSpec>& regions, Options options);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  const std::vector<Region>& regions() const { return regions_; }
  uint64_t size() const { return size_; }
  int memfd() const { return memfd_.get(); }

  /// The one bounds check: nothing unless `[address, address + length)` is wholly inside one region, without
  /// overflow.
  std::optional<GuestSlice> slice(uint64_t address, uint64_t length) const noexcept {
    for (const Region& region : regions_) {
      if (address >= region.address && address - region.address < region.size) {
        const uint64_t offset = address - region.address;
        if (length > region.size - offset) {
          return std::nullopt;
        }
        return GuestSlice(region.host + offset, length);
      }
    }
    return std::nullopt;
  }

  /// A copy of a T at `address`, or nothing when it is not inside RAM.
  template <typename T>
  std::optional<T> read(uint64_t address) const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto at = slice(address, sizeof(T));
    if (!at) {
      return std::nullopt;
    }
    T value;
    at->read(0, &value, sizeof value);
    return value;
  }
  template <typename T>
  bool write(uint64_t address, const T& value) const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto at = slice(address, sizeof(T));
    if (!at) {
      return false;
    }
    at->write(0, &value, sizeof value);
    return true;
  }

  /// Gives the whole pages of 4 KiB within `slice`, which has to be this memory's, back to the host: they are
  /// backed by nothing until they are used again, and read as zeros then. 0 or an errno.
  int discard(const GuestSlice& slice) const noexcept;

  /// Reads `length` bytes of `fd` from `fileOffset` on to guest RAM at `address`; 0 or an errno (EFAULT:
  /// outside RAM, ENODATA: the file is shorter).
  int load(int fd, uint64_t fileOffset, uint64_t address, uint64_t length) const noexcept;

 private:
  std::vector<Region> regions_;
  std::vector<std::pair<void*, size_t>> mappings_;
  uint64_t size_ = 0;
  Fd memfd_;
};

}  // namespace tsvmm
