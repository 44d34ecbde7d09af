#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory/guest_memory.h"
#include "virtio/queue.h"

/// The driver's side of a device, for tests: guest RAM that is handed out piece by piece, and a split
/// virtqueue as a driver keeps it. Nothing here is checked as a device must check it, so that a test can
/// break every rule.
namespace tsvmm::test {

/// Guest RAM from `base` on and a bump allocator over it.
class GuestRam {
 public:
  explicit GuestRam(uint64_t size = 16 << 20, uint64_t base = 0)
      : memory({{base, size}}, {.backing = GuestMemory::Backing::kAnonymous, .hugePages = false}),
        start_(base + 4096),
        next_(start_),
        end_(base + size) {}

  /// A guest physical address of `size` free bytes.
  uint64_t alloc(uint64_t size, uint64_t alignment = 16) {
    const uint64_t address = (next_ + alignment - 1) / alignment * alignment;
    if (address + size > end_) {
      throw std::runtime_error("the test's guest RAM is used up");
    }
    next_ = address + size;
    return address;
  }
  /// Allocates and fills.
  uint64_t place(const void* bytes, uint64_t size, uint64_t alignment = 16) {
    const uint64_t address = alloc(size, alignment);
    write(address, bytes, size);
    return address;
  }
  void write(uint64_t address, const void* bytes, uint64_t size) {
    memory.slice(address, size).value().write(0, bytes, size);
  }
  std::string read(uint64_t address, uint64_t size) {
    std::string bytes(size, '\0');
    memory.slice(address, size).value().read(0, bytes.data(), size);
    return bytes;
  }

  /// Takes everything back that alloc() and place() have given.
  void freeAll() { next_ = start_; }

  GuestMemory memory;

 private:
  uint64_t start_;
  uint64_t next_;
  uint64_t end_;
};

/// One descriptor's worth of a chain.
struct Buffer {
  uint64_t address = 0;
  uint32_t length = 0;
  bool writable = false;
};

struct Used {
  uint16_t head = 0;
  uint32_t length = 0;
};

inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;

/// A split virtqueue as its driver sees it (virtio 1.2, 2.7). One thread at a time.
class DriverRing {
 public:
  DriverRing(GuestRam& ram, uint16_t size) : ram_(ram), size_(size), chains_(size) {
    descriptors_ = ram.alloc(16u * size, 16);
    available_ = ram.alloc(6u + 2u * size, 2);
    used_ = ram.alloc(6u + 8u * size, 4);
    for (uint16_t i = size; i > 0; i--) {
      free_.push_back(static_cast<uint16_t>(i - 1));
    }
  }

  virtio::QueueConfig config() const { return {size_, true, descriptors_, available_, used_}; }
  uint16_t size() const { return size_; }
  size_t freeDescriptors() const { return free_.size(); }

  /// Queues a chain of direct descriptors; returns its head.
  uint16_t add(const std::vector<Buffer>& buffers) {
    if (buffers.empty() || buffers.size() > free_.size()) {
      throw std::runtime_error("the test's ring has no descriptors left");
    }
    std::vector<uint16_t> taken;
    for (size_t i = 0; i < buffers.size(); i++) {
      taken.push_back(free_.back());
      free_.pop_back();
    }
    for (size_t i = 0; i < buffers.size(); i++) {
      const bool last = i + 1 == buffers.size();
      writeDescriptor(taken[i], buffers[i].address, buffers[i].length, flagsOf(buffers[i], last),
                      last ? uint16_t{0} : taken[i + 1]);
    }
    chains_[taken[0]] = taken;
    pushAvailable(taken[0]);
    return taken[0];
  }

  /// Queues a chain as one descriptor that points to an indirect table; returns its head.
  uint16_t addIndirect(const std::vector<Buffer>& buffers) {
    const uint64_t table = ram_.alloc(16u * buffers.size(), 16);
    for (size_t i = 0; i < buffers.size(); i++) {
      const bool last = i + 1 == buffers.size();
      writeDescriptorAt(table + 16u * i, buffers[i].address, buffers[i].length, flagsOf(buffers[i], last),
                        last ? uint16_t{0} : static_cast<uint16_t>(i + 1));
    }
    if (free_.empty()) {
      throw std::runtime_error("the test's ring has no descriptors left");
    }
    const uint16_t head = free_.back();
    free_.pop_back();
    writeDescriptor(head, table, static_cast<uint32_t>(16u * buffers.size()), kDescriptorIndirect, 0);
    chains_[head] = {head};
    pushAvailable(head);
    return head;
  }

  /// Takes the next used element and frees its descriptors.
  std::optional<Used> takeUsed() {
    if (usedIndex() == nextUsed_) {
      return std::nullopt;
    }
    const uint64_t element = used_ + 4 + 8u * (nextUsed_ % size_);
    const uint32_t id = ram_.memory.read<uint32_t>(element).value();
    const uint32_t length = ram_.memory.read<uint32_t>(element + 4).value();
    nextUsed_++;
    if (id >= size_ || chains_[id].empty()) {
      throw std::runtime_error("the device returned a chain that was not queued: " + std::to_string(id));
    }
    for (const uint16_t index : chains_[id]) {
      free_.push_back(index);
    }
    chains_[id].clear();
    return Used{static_cast<uint16_t>(id), length};
  }
  bool hasUsed() const { return usedIndex() != nextUsed_; }
  uint16_t usedIndex() const {
    const auto slice = ram_.memory.slice(used_ + 2, 2).value();
    return __atomic_load_n(reinterpret_cast<const uint16_t*>(slice.unsafeData()), __ATOMIC_ACQUIRE);
  }

  // The raw ring, for tests that break its rules.

  void writeDescriptor(uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
    writeDescriptorAt(descriptors_ + 16u * index, address, length, flags, next);
  }
  void writeDescriptorAt(uint64_t at, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
    ram_.memory.write(at, address);
    ram_.memory.write(at + 8, length);
    ram_.memory.write(at + 12, flags);
    ram_.memory.write(at + 14, next);
  }
  /// Makes `head` available, whatever it is.
  void pushAvailable(uint16_t head) {
    ram_.memory.write(available_ + 4 + 2u * (nextAvailable_ % size_), head);
    setAvailableIndex(static_cast<uint16_t>(nextAvailable_ + 1));
  }
  void setAvailableIndex(uint16_t index) {
    nextAvailable_ = index;
    const auto slice = ram_.memory.slice(available_ + 2, 2).value();
    __atomic_store_n(reinterpret_cast<uint16_t*>(slice.unsafeData()), index, __ATOMIC_RELEASE);
  }
  uint16_t availableIndex() const { return nextAvailable_; }
  /// Both indexes from `index` on, as if so many chains had gone through before.
  void startAt(uint16_t index) {
    setAvailableIndex(index);
    ram_.memory.write(used_ + 2, index);
    nextUsed_ = index;
  }
  /// VIRTQ_AVAIL_F_NO_INTERRUPT is 1.
  void setAvailableFlags(uint16_t flags) { ram_.memory.write(available_, flags); }
  /// VIRTQ_USED_F_NO_NOTIFY is 1.
  uint16_t usedFlags() const { return ram_.memory.read<uint16_t>(used_).value(); }
  /// With VIRTIO_F_EVENT_IDX: interrupt when the used index passes this.
  void setUsedEvent(uint16_t index) { ram_.memory.write(available_ + 4 + 2u * size_, index); }
  /// With VIRTIO_F_EVENT_IDX: the device wants a notification when the available index passes this.
  uint16_t availableEvent() const { return ram_.memory.read<uint16_t>(used_ + 4 + 8u * size_).value(); }

 private:
  static uint16_t flagsOf(const Buffer& buffer, bool last) {
    return static_cast<uint16_t>((buffer.writable ? kDescriptorWrite : 0) | (last ? 0 : kDescriptorNext));
  }

  GuestRam& ram_;
  uint16_t size_;
  uint64_t descriptors_ = 0;
  uint64_t available_ = 0;
  uint64_t used_ = 0;
  uint16_t nextAvailable_ = 0;
  uint16_t nextUsed_ = 0;
  std::vector<uint16_t> free_;
  std::vector<std::vector<uint16_t>> chains_;  ///< the descriptors of each chain in flight, by head
};

}  // namespace tsvmm::test
