#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

#include "virtio/queue.h"

namespace tsvmm::virtio::net {

/// Buffers of a receive queue that were taken from it and hold no frame yet, in their order. So that a frame
/// can be read straight to where it belongs, there have to be enough for the longest before its length is
/// known; what it does not need waits here for the next.
class ReceiveBuffers {
 public:
  /// Takes buffers until at least `bytes` fit into all of them, or the queue has no more. Returns what rule a
  /// buffer breaks, or nullptr. A queue that is broken tells so itself.
  const char* fill(Queue& queue, size_t bytes);
  /// Puts all of them back, so that the queue is as if they had not been taken.
  void giveBack(Queue& queue);
  /// Forgets them: the queue is gone.
  void clear();

  bool empty() const { return first_ == buffers_.size(); }
  size_t count() const { return buffers_.size() - first_; }
  size_t bytes() const { return bytes_; }
  /// Not if empty().
  size_t firstBytes() const { return buffers_[first_].size; }

  /// Fills `parts` for a system call with what holds the first `bytes` bytes; sets how many parts that are,
  /// and returns how many bytes they hold, less where there are not enough parts.
  size_t parts(size_t bytes, std::span<iovec> parts, size_t& count) const;
  /// Copies from and to byte `offset` of all of them; within bytes().
  void read(size_t offset, void* to, size_t length) const;
  void write(size_t offset, const void* from, size_t length) const;

  /// How many buffers a frame of `bytes` bytes with its header takes.
  uint16_t needed(size_t bytes) const;
  /// Returns to the driver the first buffers, which hold a frame of `bytes` bytes with its header.
  void push(Queue& queue, size_t bytes);

 private:
  struct Buffer {
    uint16_t head;
    uint16_t slices;
    uint32_t size;
  };
  template <typename Move>
  void forEachPart(size_t offset, size_t length, Move&& move) const;
  void forgetUsed();

  Chain chain_;
  std::vector<Buffer> buffers_;
  std::vector<GuestSlice> slices_;
  size_t first_ = 0;       ///< in buffers_
  size_t firstSlice_ = 0;  ///< in slices_
  size_t bytes_ = 0;
};

}  // namespace tsvmm::virtio::net
