#include "virtio/queue.h"

#include <algorithm>

#include "virtio/device.h"

namespace tsvmm::virtio {
namespace {

// Virtio 1.2, 2.7.5: the descriptor table's flags.
constexpr uint16_t kNext = 1;
constexpr uint16_t kWrite = 2;
constexpr uint16_t kIndirect = 4;
// 2.7.6 and 2.7.8: flags of the available and the used ring.
constexpr uint16_t kNoInterrupt = 1;
constexpr uint16_t kNoNotify = 1;

constexpr size_t kDescriptorSize = 16;
// A chain may be as long as the queue is large (2.7.5.3.1); small queues with indirect tables get some room.
constexpr uint32_t kMinChainLimit = 1024;

uint16_t loadAcquire(const uint8_t* at) {
  return __atomic_load_n(reinterpret_cast<const uint16_t*>(at), __ATOMIC_ACQUIRE);
}
uint16_t loadRelaxed(const uint8_t* at) {
  return __atomic_load_n(reinterpret_cast<const uint16_t*>(at), __ATOMIC_RELAXED);
}
void storeRelease(uint8_t* at, uint16_t value) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(at), value, __ATOMIC_RELEASE);
}
void storeRelaxed(uint8_t* at, uint16_t value) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(at), value, __ATOMIC_RELAXED);
}

/// Collects iovecs of `slices` from byte `from` on, at most `limit` bytes.
void collect(const std::vector<GuestSlice>& slices, uint64_t from, uint64_t limit,
             std::vector<iovec>& iovecs) {
  iovecs.clear();
  iovecs.reserve(slices.size());
  for (const GuestSlice& slice : slices) {
    if (limit == 0) {
      break;
    }
    if (from >= slice.size()) {
      from -= slice.size();
      continue;
    }
    const GuestSlice part = slice.part(from, std::min<uint64_t>(limit, slice.size() - from));
    from = 0;
    limit -= part.size();
    iovecs.push_back(part.unsafeIovec());
  }
}

/// Calls `move(slice part, bytes done so far)` over `length` bytes from `from` on; the caller has checked the
/// bounds.
template <typename Move>
void forEachPart(const std::vector<GuestSlice>& slices, uint64_t from, size_t length, Move&& move) {
  size_t done = 0;
  for (const GuestSlice& slice : slices) {
    if (done == length) {
      return;
    }
    if (from >= slice.size()) {
      from -= slice.size();
      continue;
    }
    const GuestSlice part = slice.part(from, length - done);
    from = 0;
    move(part, done);
    done += part.size();
  }
}

}  // namespace

void Chain::clear(uint16_t head) {
  head_ = head;
  readable_.clear();
  writable_.clear();
  readableSize_ = writableSize_ = readAt_ = writeAt_ = 0;
}

bool Chain::read(void* to, size_t length) {
  if (length > readableLeft()) {
    return false;
  }
  forEachPart(readable_, readAt_, length, [&](const GuestSlice& part, size_t done) {
    part.read(0, static_cast<uint8_t*>(to) + done, part.size());
  });
  readAt_ += length;
  return true;
}

std::vector<iovec> Chain::takeReadable(uint64_t limit) {
  std::vector<iovec> iovecs;
  takeReadable(limit, iovecs);
  return iovecs;
}

void Chain::takeReadable(uint64_t limit, std::vector<iovec>& to) {
  limit = std::min(limit, readableLeft());
  collect(readable_, readAt_, limit, to);
  readAt_ += limit;
}

bool Chain::write(const void* from, size_t length) {
  if (!writeAt(writeAt_, from, length)) {
    return false;
  }
  writeAt_ += length;
  return true;
}

std::vector<iovec> Chain::writableIovecs(uint64_t limit) const {
  std::vector<iovec> iovecs;
  writableIovecs(limit, iovecs);
  return iovecs;
}

void Chain::writableIovecs(uint64_t limit, std::vector<iovec>& to) const {
  collect(writable_, writeAt_, limit, to);
}

void Chain::advanceWritten(uint64_t length) { writeAt_ += std::min(length, writableLeft()); }

bool Chain::writeAt(uint64_t offset, const void* from, size_t length) {
  if (offset > writableSize_ || length > writableSize_ - offset) {
    return false;
  }
  forEachPart(writable_, offset, length, [&](const GuestSlice& part, size_t done) {
    part.write(0, static_cast<const uint8_t*>(from) + done, part.size());
  });
  return true;
}

const char* Queue::configure(const GuestMemory& memory, const QueueConfig& config, uint16_t maxSize,
                             uint64_t features) {
  *this = Queue();
  if (config.size == 0 || config.size > maxSize || (config.size & (config.size - 1)) != 0) {
    return "queue size is not a power of two within the device's limit";
  }
  if (config.descriptors % 16 != 0 || config.available % 2 != 0 || config.used % 4 != 0) {
    return "ring is not aligned";
  }
  // With the event index each ring has two more bytes (2.7.6, 2.7.8); asked for always: the layout reserves
  // them.
  const auto descriptors = memory.slice(config.descriptors, uint64_t{config.size} * kDescriptorSize);
  const auto available = memory.slice(config.available, 6 + uint64_t{config.size} * 2);
  const auto used = memory.slice(config.used, 6 + uint64_t{config.size} * 8);
  if (!descriptors || !available || !used) {
    return "ring is not inside RAM";
  }
  memory_ = &memory;
  config_ = config;
  size_ = config.size;
  eventIndex_ = (features & kFeatureEventIndex) != 0;
  indirect_ = (features & kFeatureIndirect) != 0;
  descriptors_ = descriptors->unsafeData();
  available_ = available->unsafeData();
  used_ = used->unsafeData();
  return nullptr;
}

void Queue::setState(QueueState state) {
  nextAvailable_ = state.nextAvailable;
  nextUsed_ = signalledUsed_ = state.nextUsed;
}

bool Queue::append(Chain& chain, const Descriptor& descriptor) {
  const bool write = (descriptor.flags & kWrite) != 0;
  if (!write && !chain.writable_.empty()) {
    broken_ = "a readable descriptor follows a writable one";
    return false;
  }
  if (descriptor.length == 0) {
    return true;
  }
  const auto slice = memory_->slice(descriptor.address, descriptor.length);
  if (!slice) {
    broken_ = "a descriptor's buffer is not inside RAM";
    return false;
  }
  uint64_t& total = write ? chain.writableSize_ : chain.readableSize_;
  if (total + descriptor.length > UINT32_MAX) {
    broken_ = "a chain holds more than 4 GiB";
    return false;
  }
  total += descriptor.length;
  (write ? chain.writable_ : chain.readable_).push_back(*slice);
  return true;
}

bool Queue::walk(Chain& chain, const uint8_t* table, uint32_t count, uint16_t first, bool indirect) {
  uint16_t index = first;
  // Each step visits one entry, so a chain longer than the table has a loop.
  for (uint32_t steps = 0; steps < count; steps++) {
    Descriptor descriptor;
    std::memcpy(&descriptor, table + index * kDescriptorSize, sizeof descriptor);
    if ((descriptor.flags & kIndirect) != 0) {
      if (indirect || !indirect_) {
        broken_ = indirect ? "an indirect table is nested" : "an indirect descriptor was not negotiated";
        return false;
      }
      const uint32_t entries = descriptor.length / kDescriptorSize;
      const auto inner = memory_->slice(descriptor.address, descriptor.length);
      if (!inner || descriptor.length % kDescriptorSize != 0 || entries == 0 ||
          entries > std::max<uint32_t>(size_, kMinChainLimit) || (descriptor.flags & kNext) != 0) {
        broken_ = "an indirect table is outside RAM, of a wrong length, or has a successor";
        return false;
      }
      return walk(chain, inner->unsafeData(), entries, 0, true);
    }
    if (!append(chain, descriptor)) {
      return false;
    }
    if ((descriptor.flags & kNext) == 0) {
      return true;
    }
    if (descriptor.next >= count) {
      broken_ = "a descriptor's successor is outside its table";
      return false;
    }
    index = descriptor.next;
  }
  broken_ = "a descriptor chain has a loop";
  return false;
}

Queue::Pop Queue::pop(Chain& chain) {
  if (broken_ != nullptr) {
    return Pop::kBroken;
  }
  if (memory_ == nullptr) {
    return Pop::kEmpty;
  }
  const uint16_t index = loadAcquire(available_ + 2);
  const uint16_t count = index - nextAvailable_;
  if (count == 0) {
    return Pop::kEmpty;
  }
  if (count > size_) {
    return fail("the available index is more than the queue's size ahead");
  }
  if (inFlight_ >= size_) {
    return fail("more chains are available than the queue has descriptors");
  }
  const uint16_t head = loadRelaxed(available_ + 4 + (nextAvailable_ & (size_ - 1)) * 2);
  if (head >= size_) {
    return fail("an available entry is not below the queue's size");
  }
  chain.clear(head);
  if (!walk(chain, descriptors_, size_, head, false)) {
    return Pop::kBroken;
  }
  nextAvailable_++;
  inFlight_++;
  return Pop::kChain;
}

bool Queue::reopen(uint16_t head, Chain& chain) {
  if (broken_ != nullptr || memory_ == nullptr || head >= size_ || inFlight_ >= size_) {
    return false;
  }
  chain.clear(head);
  if (!walk(chain, descriptors_, size_, head, false)) {
    return false;
  }
  inFlight_++;
  return true;
}

void Queue::undoPop() {
  nextAvailable_--;
  inFlight_--;
}

void Queue::pushLater(uint16_t head, uint32_t written) {
  if (memory_ == nullptr || inFlight_ == 0) {
    return;
  }
  inFlight_--;
  uint8_t* entry = used_ + 4 + (nextUsed_ & (size_ - 1)) * 8;
  const uint32_t element[2] = {head, written};
  std::memcpy(entry, element, sizeof element);
  nextUsed_++;
}

void Queue::publish() {
  if (memory_ != nullptr) {
    storeRelease(used_ + 2, nextUsed_);
  }
}

bool Queue::needsInterrupt() {
  if (memory_ == nullptr || nextUsed_ == signalledUsed_) {
    return false;
  }
  // The used index must be visible before the driver's wish is read (2.7.7.1), or an interrupt could be lost.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint16_t before = signalledUsed_;
  signalledUsed_ = nextUsed_;
  if (!eventIndex_) {
    return (loadRelaxed(available_) & kNoInterrupt) == 0;
  }
  const uint16_t event = loadRelaxed(available_ + 4 + size_ * 2);
  return static_cast<uint16_t>(nextUsed_ - event - 1) < static_cast<uint16_t>(nextUsed_ - before);
}

bool Queue::hasAvailable() {
  return memory_ != nullptr && broken_ == nullptr && loadAcquire(available_ + 2) != nextAvailable_;
}

void Queue::disableNotifications() {
  if (memory_ != nullptr && !eventIndex_) {
    storeRelaxed(used_, kNoNotify);
  }
}

bool Queue::enableNotifications() {
  if (memory_ == nullptr) {
    return false;
  }
  if (eventIndex_) {
    storeRelaxed(used_ + 4 + size_ * 8, nextAvailable_);
  } else {
    storeRelaxed(used_, 0);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return hasAvailable();
}

}  // namespace tsvmm::virtio
