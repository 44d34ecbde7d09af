#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"

namespace tsvmm::virtio {

/// One buffer as the driver queued it: what the device may read, then what it may write
/// (virtio 1.2, 2.7.4.2). Reading and writing go front to back; every access is bounded by what the chain
/// holds.
class Chain {
 public:
  uint16_t head() const { return head_; }

  const std::vector<GuestSlice>& readable() const { return readable_; }
  const std::vector<GuestSlice>& writable() const { return writable_; }
  uint64_t readableSize() const { return readableSize_; }
  uint64_t writableSize() const { return writableSize_; }

  /// Copies the next `length` readable bytes; false (and nothing consumed) if there are not that many.
  bool read(void* to, size_t length);
  template <typename T>
  std::optional<T> read() {
    T value;
    return read(&value, sizeof value) ? std::optional<T>(value) : std::nullopt;
  }
  uint64_t readableLeft() const { return readableSize_ - readAt_; }
  /// The unread rest, at most `limit` bytes, as iovecs for a system call; advances past it.
  std::vector<iovec> takeReadable(uint64_t limit);
  /// The same into a vector that is used again and again.
  void takeReadable(uint64_t limit, std::vector<iovec>& to);

  /// Copies to the next writable bytes; false (and nothing written) if they do not fit.
  bool write(const void* from, size_t length);
  template <typename T>
  bool write(const T& value) {
    return write(&value, sizeof value);
  }
  uint64_t writableLeft() const { return writableSize_ - writeAt_; }
  /// The next at most `limit` writable bytes as iovecs for a system call. They count as written only with
  /// advanceWritten(), so that the used length never exceeds what was stored.
  std::vector<iovec> writableIovecs(uint64_t limit) const;
  void writableIovecs(uint64_t limit, std::vector<iovec>& to) const;
  void advanceWritten(uint64_t length);
  /// Copies to an absolute offset of the writable part without moving the position (a status byte at the end,
  /// a header filled in later); false if it does not fit.
  bool writeAt(uint64_t offset, const void* from, size_t length);
  /// How many bytes from the start of the writable part on have been written: the used length.
  uint32_t written() const { return static_cast<uint32_t>(writeAt_); }

 private:
  friend class Queue;
  void clear(uint16_t head);

  uint16_t head_ = 0;
  std::vector<GuestSlice> readable_;
  std::vector<GuestSlice> writable_;
  uint64_t readableSize_ = 0;
  uint64_t writableSize_ = 0;
  uint64_t readAt_ = 0;
  uint64_t writeAt_ = 0;
};

/// What the driver told the transport about a queue.
struct QueueConfig {
  uint16_t size = 0;
  bool ready = false;
  uint64_t descriptors = 0;
  uint64_t available = 0;
  uint64_t used = 0;
};

/// What a saved queue needs beyond its QueueConfig.
struct QueueState {
  uint16_t nextAvailable = 0;
  uint16_t nextUsed = 0;
};

/// The device's side of a split virtqueue (virtio 1.2, 2.7) with indirect descriptors and event index.
/// Belongs to one thread. Once the driver breaks a rule the queue is `broken()` and yields nothing more until
/// it is configured anew.
class Queue {
 public:
  enum class Pop { kEmpty, kChain, kBroken };

  /// Checks size, alignment and that all three rings lie in RAM. Returns what is wrong, or nullptr.
  const char* configure(const GuestMemory& memory, const QueueConfig& config, uint16_t maxSize,
                        uint64_t features);
  void disable() { *this = Queue(); }

  bool enabled() const { return memory_ != nullptr; }
  bool broken() const { return broken_ != nullptr; }
  /// Which rule was broken; for the log.
  const char* brokenReason() const { return broken_; }
  uint16_t size() const { return size_; }
  /// Chains that were popped and have not been pushed.
  uint32_t inFlight() const { return inFlight_; }
  const QueueConfig& config() const { return config_; }
  QueueState state() const { return {nextAvailable_, nextUsed_}; }
  void setState(QueueState state);

  /// Takes the next available chain.
  Pop pop(Chain& chain);
  /// Takes a chain again that had been popped and not pushed when the queue was saved, by its head. False:
  /// the head is out of range, or the chain breaks a rule (the queue is broken then).
  bool reopen(uint16_t head, Chain& chain);
  /// Puts back the chain popped last: the device cannot serve it now. Several go back in turn, the last
  /// first.
  void undoPop();
  /// Returns a chain to the driver with `written` bytes in its writable part. Each popped chain exactly once.
  void push(uint16_t head, uint32_t written) {
    pushLater(head, written);
    publish();
  }
  /// As push(), but the driver sees it only after publish(): for chains that belong together.
  void pushLater(uint16_t head, uint32_t written);
  void publish();
  void push(const Chain& chain) { push(chain.head(), chain.written()); }
  /// Whether the driver wants an interrupt for what was pushed since the last call (2.7.7, 2.7.10).
  bool needsInterrupt();
  /// Whether the driver has made something available that was not popped.
  bool hasAvailable();

  /// Tells the driver that it need not notify (2.7.7: while the device is at work).
  void disableNotifications();
  /// Asks for a notification of the next buffer. Returns true if one has come meanwhile: serve it first.
  bool enableNotifications();

  /// Serves what is available: `serve(Chain&)` returns false to stop (the chain is put back and notifications
  /// are off: the device continues by itself). At most two rounds of the ring; returns true if the caller
  /// should come again (post itself).
  template <typename Serve>
  bool drain(Serve&& serve) {
    // A chain's memory serves visit after visit.
    Chain chain = std::move(spare_);
    const bool again = drain(chain, serve);
    spare_ = std::move(chain);
    return again;
  }

 private:
  struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
  };

  template <typename Serve>
  bool drain(Chain& chain, Serve& serve) {
    uint32_t budget = 2u * size_;
    do {
      disableNotifications();
      while (true) {
        if (budget-- == 0) {
          return true;
        }
        if (pop(chain) != Pop::kChain) {
          break;
        }
        if (!serve(chain)) {
          undoPop();
          return false;
        }
      }
    } while (!broken() && enableNotifications());
    return false;
  }

  Pop fail(const char* reason) {
    broken_ = reason;
    return Pop::kBroken;
  }
  /// Appends one buffer to the chain; false when a rule is broken (the reason is set).
  bool append(Chain& chain, const Descriptor& descriptor);
  bool walk(Chain& chain, const uint8_t* table, uint32_t count, uint16_t first, bool indirect);

  const GuestMemory* memory_ = nullptr;
  QueueConfig config_;
  uint16_t size_ = 0;
  bool eventIndex_ = false;
  bool indirect_ = false;
  const char* broken_ = nullptr;
  uint8_t* descriptors_ = nullptr;
  uint8_t* available_ = nullptr;
  uint8_t* used_ = nullptr;
  uint16_t nextAvailable_ = 0;
  uint16_t nextUsed_ = 0;
  uint16_t signalledUsed_ = 0;
  uint32_t inFlight_ = 0;
  Chain spare_;
};

}  // namespace tsvmm::virtio
