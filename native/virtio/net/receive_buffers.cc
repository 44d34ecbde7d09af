#include "virtio/net/receive_buffers.h"

#include <algorithm>

#include "virtio/net/header.h"

namespace tsvmm::virtio::net {

const char* ReceiveBuffers::fill(Queue& queue, size_t bytes) {
  forgetUsed();
  while (bytes_ < bytes && queue.pop(chain_) == Queue::Pop::kChain) {
    // Virtio 1.2, 5.1.6.3.1: a buffer has room for the header at least.
    if (chain_.writableSize() < sizeof(Header)) {
      queue.undoPop();
      return "a receive buffer is smaller than the header";
    }
    const auto& slices = chain_.writable();
    slices_.insert(slices_.end(), slices.begin(), slices.end());
    const auto size = static_cast<uint32_t>(chain_.writableSize());
    buffers_.push_back({chain_.head(), static_cast<uint16_t>(slices.size()), size});
    bytes_ += size;
  }
  return nullptr;
}

void ReceiveBuffers::forgetUsed() {
  if (first_ == buffers_.size()) {
    clear();
  } else if (first_ >= 64) {
    buffers_.erase(buffers_.begin(), buffers_.begin() + static_cast<ptrdiff_t>(first_));
    slices_.erase(slices_.begin(), slices_.begin() + static_cast<ptrdiff_t>(firstSlice_));
    first_ = firstSlice_ = 0;
  }
}

void ReceiveBuffers::giveBack(Queue& queue) {
  for (size_t i = first_; i < buffers_.size(); i++) {
    queue.undoPop();
  }
  clear();
}

void ReceiveBuffers::clear() {
  buffers_.clear();
  slices_.clear();
  first_ = firstSlice_ = bytes_ = 0;
}

size_t ReceiveBuffers::parts(size_t bytes, std::span<iovec> parts, size_t& count) const {
  size_t covered = 0;
  count = 0;
  for (size_t i = firstSlice_; i < slices_.size() && covered < bytes && count < parts.size(); i++) {
    iovec part = slices_[i].unsafeIovec();
    part.iov_len = std::min(part.iov_len, bytes - covered);
    covered += part.iov_len;
    parts[count++] = part;
  }
  return covered;
}

template <typename Move>
void ReceiveBuffers::forEachPart(size_t offset, size_t length, Move&& move) const {
  size_t done = 0;
  for (size_t i = firstSlice_; i < slices_.size() && done < length; i++) {
    const GuestSlice& slice = slices_[i];
    if (offset >= slice.size()) {
      offset -= slice.size();
      continue;
    }
    const size_t part = std::min(length - done, slice.size() - offset);
    move(slice, offset, done, part);
    offset = 0;
    done += part;
  }
}

void ReceiveBuffers::read(size_t offset, void* to, size_t length) const {
  forEachPart(offset, length, [&](const GuestSlice& slice, size_t at, size_t done, size_t part) {
    slice.read(at, static_cast<uint8_t*>(to) + done, part);
  });
}

void ReceiveBuffers::write(size_t offset, const void* from, size_t length) const {
  forEachPart(offset, length, [&](const GuestSlice& slice, size_t at, size_t done, size_t part) {
    slice.write(at, static_cast<const uint8_t*>(from) + done, part);
  });
}

uint16_t ReceiveBuffers::needed(size_t bytes) const {
  size_t i = first_;
  for (size_t covered = 0; covered < bytes && i < buffers_.size(); i++) {
    covered += buffers_[i].size;
  }
  return static_cast<uint16_t>(i - first_);
}

void ReceiveBuffers::push(Queue& queue, size_t bytes) {
  while (bytes != 0 && first_ < buffers_.size()) {
    const Buffer& buffer = buffers_[first_++];
    const size_t used = std::min<size_t>(bytes, buffer.size);
    queue.pushLater(buffer.head, static_cast<uint32_t>(used));
    bytes -= used;
    bytes_ -= buffer.size;
    firstSlice_ += buffer.slices;
  }
  // 5.1.6.3.2: a driver that sees the first finds the others as well.
  queue.publish();
}

}  // namespace tsvmm::virtio::net
