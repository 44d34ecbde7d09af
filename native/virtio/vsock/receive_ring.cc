#include "virtio/vsock/receive_ring.h"

#include <algorithm>

namespace tsvmm::virtio::vsock {

void ReceiveRing::attach(Queue* queue) {
  queue_ = queue;
  first_ = 0;
  count_ = 0;
  pushed_ = false;
  quiet_ = false;
}

size_t ReceiveRing::fill(size_t count) {
  if (!quiet_) {
    queue_->disableNotifications();
    quiet_ = true;
  }
  // A buffer that cannot hold a header goes back at once, but not without end.
  size_t unusable = queue_->size();
  while (count_ < count) {
    Chain& chain = at(count_);
    if (queue_->pop(chain) != Queue::Pop::kChain) {
      if (count_ != 0 || queue_->broken() || !queue_->enableNotifications()) {
        quiet_ = count_ != 0;
        break;
      }
      queue_->disableNotifications();
      continue;
    }
    if (chain.write(Header{})) {
      count_++;
      continue;
    }
    malformed_++;
    queue_->push(chain.head(), 0);
    pushed_ = true;
    if (unusable-- == 0) {
      quiet_ = false;
      queue_->enableNotifications();
      break;
    }
  }
  return count_;
}

std::span<const iovec> ReceiveRing::payload(uint32_t limit) {
  iovecs_.clear();
  for (size_t i = 0; i < count_ && limit != 0; i++) {
    size_t skip = sizeof(Header);
    for (const GuestSlice& slice : at(i).writable()) {
      if (skip >= slice.size()) {
        skip -= slice.size();
        continue;
      }
      iovec part = slice.part(skip, limit).unsafeIovec();
      skip = 0;
      limit -= static_cast<uint32_t>(part.iov_len);
      iovecs_.push_back(part);
      if (limit == 0) {
        break;
      }
    }
  }
  return iovecs_;
}

void ReceiveRing::send(const Header& header, uint32_t length) {
  Chain& chain = chains_[first_];
  chain.writeAt(0, &header, sizeof header);
  chain.advanceWritten(length);
  queue_->push(chain);
  pushed_ = true;
  first_ = (first_ + 1) % kCapacity;
  count_--;
}

void ReceiveRing::discard() {
  malformed_++;
  queue_->push(chains_[first_].head(), 0);
  pushed_ = true;
  first_ = (first_ + 1) % kCapacity;
  count_--;
}

void ReceiveRing::giveBack() {
  for (; count_ != 0; count_--) {
    queue_->undoPop();
  }
  quiet_ = false;
}

}  // namespace tsvmm::virtio::vsock
