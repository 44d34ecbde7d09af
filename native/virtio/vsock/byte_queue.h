#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace tsvmm::virtio::vsock {

/// Bytes in order, appended at the end and consumed at the front. Whoever appends keeps it within bounds.
/// Empty, it holds no memory worth naming.
class ByteQueue {
 public:
  size_t size() const { return bytes_.size() - head_; }
  bool empty() const { return size() == 0; }
  const uint8_t* data() const { return bytes_.data() + head_; }

  void append(const void* from, size_t length) {
    const auto* first = static_cast<const uint8_t*>(from);
    bytes_.insert(bytes_.end(), first, first + length);
  }
  /// Appends what `from` holds beyond its first `skip` bytes.
  void append(std::span<const iovec> from, size_t skip) {
    for (const iovec& part : from) {
      if (skip >= part.iov_len) {
        skip -= part.iov_len;
        continue;
      }
      append(static_cast<const uint8_t*>(part.iov_base) + skip, part.iov_len - skip);
      skip = 0;
    }
  }
  void consume(size_t length) {
    head_ += length;
    if (head_ == bytes_.size()) {
      clear();
    } else if (head_ >= bytes_.size() / 2) {
      // Moving at most as much as was consumed since the last move.
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(head_));
      head_ = 0;
    }
  }
  void clear() {
    head_ = 0;
    if (bytes_.capacity() > kKeep) {
      std::vector<uint8_t>().swap(bytes_);
    } else {
      bytes_.clear();
    }
  }

 private:
  static constexpr size_t kKeep = 4096;

  std::vector<uint8_t> bytes_;
  size_t head_ = 0;
};

}  // namespace tsvmm::virtio::vsock
