#include "virtio/net/stream.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace tsvmm::virtio::net {
namespace {

constexpr size_t kLength = sizeof(uint32_t);
// Some frames of the largest size, so that a call brings many.
constexpr size_t kCapacity = 256 << 10;

class StreamBackend final : public Backend {
 public:
  StreamBackend(Fd socket, std::string name)
      : socket_(std::move(socket)), name_(std::move(name)), received_(new uint8_t[kCapacity]) {}

  uint16_t pairs() const override { return 1; }
  int descriptor(uint16_t) const override { return socket_.get(); }

  ssize_t read(uint16_t, std::span<const iovec> parts) override {
    while (true) {
      const size_t have = end_ - begin_;
      if (have >= kLength) {
        uint32_t length;
        std::memcpy(&length, received_.get() + begin_, sizeof length);
        length = be32toh(length);
        if (length < kEthernetHeader || length > kMaxFrame) {
          return -EPROTO;
        }
        if (have >= kLength + length) {
          deliver(parts, received_.get() + begin_ + kLength, length);
          begin_ += kLength + length;
          return static_cast<ssize_t>(sizeof(Header) + length);
        }
      }
      if (begin_ != 0) {
        std::memmove(received_.get(), received_.get() + begin_, have);
        begin_ = 0;
        end_ = have;
      }
      const ssize_t count = recv(socket_.get(), received_.get() + end_, kCapacity - end_, MSG_DONTWAIT);
      if (count <= 0) {
        return count == 0 ? -ECONNRESET : -errno;
      }
      end_ += static_cast<size_t>(count);
    }
  }

  int write(uint16_t pair, const Header&, std::span<iovec> parts, size_t size) override {
    if (!flush(pair)) {
      return -EAGAIN;
    }
    const uint32_t length = htobe32(static_cast<uint32_t>(size));
    parts[0] = {const_cast<uint32_t*>(&length), sizeof length};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t count = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) {
      return -errno;
    }
    // The peer would take the next frame for the rest of this one: the rest is kept and goes first.
    size_t skip = static_cast<size_t>(count);
    for (const iovec& part : parts) {
      const size_t skipped = std::min(skip, part.iov_len);
      skip -= skipped;
      const auto* from = static_cast<const uint8_t*>(part.iov_base);
      unsent_.insert(unsent_.end(), from + skipped, from + part.iov_len);
    }
    return 0;
  }

  bool flush(uint16_t) override {
    while (unsentAt_ < unsent_.size()) {
      const ssize_t count = send(socket_.get(), unsent_.data() + unsentAt_, unsent_.size() - unsentAt_,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count < 0) {
        return errno != EAGAIN && errno != EINTR;  // the next read or write tells what it is
      }
      unsentAt_ += static_cast<size_t>(count);
    }
    unsent_.clear();
    unsentAt_ = 0;
    return true;
  }

  bool gone(int error) const override {
    return error == ECONNRESET || error == EPIPE || error == ENOTCONN || error == EPROTO;
  }

  std::string name() const override { return name_; }

 private:
  static void deliver(std::span<const iovec> parts, const uint8_t* frame, size_t size) {
    const Header header;
    const uint8_t* from = reinterpret_cast<const uint8_t*>(&header);
    size_t left = sizeof header;
    bool inFrame = false;
    for (const iovec& part : parts) {
      size_t at = 0;
      while (at < part.iov_len) {
        if (left == 0) {
          if (std::exchange(inFrame, true)) {
            return;
          }
          from = frame;
          left = size;
        }
        const size_t length = std::min(left, part.iov_len - at);
        std::memcpy(static_cast<uint8_t*>(part.iov_base) + at, from, length);
        from += length;
        left -= length;
        at += length;
      }
    }
  }

  const Fd socket_;
  const std::string name_;
  const std::unique_ptr<uint8_t[]> received_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::vector<uint8_t> unsent_;
  size_t unsentAt_ = 0;
};

}  // namespace

std::unique_ptr<Backend> makeStreamBackend(Fd socket, std::string name) {
  return std::make_unique<StreamBackend>(std::move(socket), std::move(name));
}

}  // namespace tsvmm::virtio::net
