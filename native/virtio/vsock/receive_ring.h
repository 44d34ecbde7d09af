#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "virtio/queue.h"
#include "virtio/vsock/packet.h"

namespace tsvmm::virtio::vsock {

/// The guest's receive buffers, taken from the queue ahead of use: so that one system call fills several of
/// them, and one that turns out not to be needed is there for the next packet. Each has room for a header set
/// aside.
class ReceiveRing {
 public:
  static constexpr size_t kCapacity = 32;

  void attach(Queue* queue);
  void detach() { attach(nullptr); }

  /// Tries to have `count` (at most kCapacity) buffers at hand; returns how many there are. With none, the
  /// driver has been asked to notify of the next one.
  size_t fill(size_t count);
  /// The payload room of the first buffers as iovecs: up to `limit` bytes in up to kCapacity buffers.
  std::span<const iovec> payload(uint32_t limit);
  /// Returns the first buffer to the driver with `header` and `length` bytes of payload that are in it
  /// already.
  void send(const Header& header, uint32_t length);
  uint32_t firstRoom() const { return static_cast<uint32_t>(chains_[first_].writableLeft()); }
  /// Gives the first buffer back empty: it is of no use.
  void discard();
  /// Puts all back, as if they had not been taken.
  void giveBack();
  /// Whether anything was returned since the last call.
  bool takePushed() { return std::exchange(pushed_, false); }
  /// How many chains have been taken from the queue and not been returned.
  size_t held() const { return count_; }
  uint64_t malformed() const { return malformed_; }

 private:
  Chain& at(size_t index) { return chains_[(first_ + index) % kCapacity]; }

  Queue* queue_ = nullptr;
  std::array<Chain, kCapacity> chains_;
  size_t first_ = 0;
  size_t count_ = 0;
  bool pushed_ = false;
  bool quiet_ = false;
  uint64_t malformed_ = 0;
  std::vector<iovec> iovecs_;
};

}  // namespace tsvmm::virtio::vsock
