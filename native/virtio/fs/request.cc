#include "virtio/fs/request.h"

#include <limits.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tsvmm::virtio::fs {

IovCursor::IovCursor(std::span<iovec> pieces) : pieces_(pieces) {
  for (const iovec& piece : pieces_) {
    left_ += piece.iov_len;
  }
  advance(0);
}

void IovCursor::advance(size_t length) {
  left_ -= length;
  while (!pieces_.empty()) {
    iovec& first = pieces_.front();
    if (length < first.iov_len) {
      first.iov_base = static_cast<char*>(first.iov_base) + length;
      first.iov_len -= length;
      return;
    }
    length -= first.iov_len;
    pieces_ = pieces_.subspan(1);
  }
}

void IovCursor::limit(uint64_t length) {
  if (length >= left_) {
    return;
  }
  left_ = length;
  size_t count = 0;
  while (length > 0) {
    iovec& piece = pieces_[count++];
    piece.iov_len = std::min<uint64_t>(piece.iov_len, length);
    length -= piece.iov_len;
  }
  pieces_ = pieces_.first(count);
}

bool IovCursor::read(void* to, size_t length) {
  if (length > left_) {
    return false;
  }
  auto* at = static_cast<char*>(to);
  while (length > 0) {
    const size_t part = std::min(length, pieces_.front().iov_len);
    std::memcpy(at, pieces_.front().iov_base, part);
    at += part;
    length -= part;
    advance(part);
  }
  return true;
}

bool IovCursor::write(const void* from, size_t length) {
  if (length > left_) {
    return false;
  }
  const auto* at = static_cast<const char*>(from);
  while (length > 0) {
    const size_t part = std::min(length, pieces_.front().iov_len);
    std::memcpy(pieces_.front().iov_base, at, part);
    at += part;
    length -= part;
    advance(part);
  }
  return true;
}

std::span<iovec> IovCursor::rest(uint64_t length) {
  limit(length);
  const std::span<iovec> all = pieces_;
  pieces_ = {};
  left_ = 0;
  return all;
}

int Request::begin() {
  if (!in.read(&header, sizeof header)) {
    return EIO;
  }
  if (header.len < sizeof header || header.len - sizeof header > in.left()) {
    return EINVAL;
  }
  in.limit(header.len - sizeof header);
  return 0;
}

int Request::loadTail() {
  if (tail_ == nullptr) {
    const size_t length = in.left();
    if (length > kMaxTail) {
      return ENAMETOOLONG;
    }
    in.read(scratch_, length);
    tail_ = scratch_;
    tailLeft_ = length;
  }
  return 0;
}

int Request::takeString(const char*& string) {
  if (const int error = loadTail()) {
    return error;
  }
  const auto* end = static_cast<const char*>(std::memchr(tail_, '\0', tailLeft_));
  if (end == nullptr || end == tail_) {
    return EINVAL;
  }
  string = tail_;
  tailLeft_ -= static_cast<size_t>(end + 1 - tail_);
  tail_ = end + 1;
  return 0;
}

int Request::takeName(const char*& name) {
  if (const int error = takeString(name)) {
    return error;
  }
  const size_t length = static_cast<size_t>(tail_ - name) - 1;
  if (std::memchr(name, '/', length) != nullptr ||
      (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))) {
    return EINVAL;
  }
  return length > NAME_MAX ? ENAMETOOLONG : 0;
}

const char* Request::takeBytes(size_t length) {
  if (loadTail() != 0 || length > tailLeft_) {
    return nullptr;
  }
  const char* bytes = tail_;
  tail_ += length;
  tailLeft_ -= length;
  return bytes;
}

int Request::replyBytes(const void* bytes, size_t length) {
  if (!out.write(bytes, length)) {
    return EINVAL;
  }
  payload_ += static_cast<uint32_t>(length);
  return 0;
}

uint32_t ReplySlot::finish(uint64_t unique, int error, uint32_t payload) {
  if (headerPieces_ == 0) {
    return 0;
  }
  const uint32_t length = static_cast<uint32_t>(kHeader) + (error == 0 ? payload : 0);
  const fuse_out_header reply{length, -error, unique};
  IovCursor(std::span(header_).first(headerPieces_)).write(&reply, sizeof reply);
  return length;
}

}  // namespace tsvmm::virtio::fs
