#include "virtio/vsock/fd_endpoint.h"

#include <sys/socket.h>

#include <cerrno>

namespace tsvmm::virtio::vsock {

FdEndpoint::FdEndpoint(const Options& options)
    : hasInput_(options.read >= 0),
      hasOutput_(options.write >= 0),
      ownSocket_(options.closeFds && options.read == options.write) {
  if (hasInput_) {
    input_.fd = InheritedFd(options.read, InheritedFd::Direction::kRead);
  }
  if (hasOutput_) {
    output_.fd = InheritedFd(options.write, InheritedFd::Direction::kWrite);
  }
  if (options.closeFds) {
    if (hasInput_ && options.read != options.write) {
      input_.given.reset(options.read);
    }
    if (hasOutput_) {
      output_.given.reset(options.write);
    }
  }
}

void FdEndpoint::start(EventLoop& loop, std::function<void()> ready) {
  loop_ = &loop;
  ready_ = std::move(ready);
  if (hasInput_) {
    readable_ = input_.fd.alwaysReady();
    watch(input_, EPOLLIN | EPOLLRDHUP | EPOLLET);
  }
  if (hasOutput_) {
    watch(output_, EPOLLOUT | EPOLLET);
  }
}

void FdEndpoint::watch(Half& half, uint32_t events) {
  if (half.fd.alwaysReady()) {
    return;
  }
  const bool isOutput = &half == &output_;
  const int error =
      loop_->add(half.fd.get(), events, [weak = weak_from_this(), this, isOutput](uint32_t happened) {
        // Held: what `ready` does may end this endpoint.
        const auto self = weak.lock();
        if (self == nullptr || loop_ == nullptr) {
          return;
        }
        if (isOutput) {
          writable_ |= (happened & EPOLLOUT) != 0;
          // A pipe without a reader, a terminal that hung up, a socket whose peer is gone.
          outputBroken_ |= (happened & (EPOLLERR | EPOLLHUP)) != 0;
        } else {
          readable_ |= (happened & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        }
        ready_();
      });
  half.watched = error == 0;
  if (error != 0) {
    // Out of memory or of watches: what cannot be watched cannot be served.
    outputBroken_ |= isOutput;
    readable_ |= !isOutput;
  }
}

void FdEndpoint::closeHalf(Half& half) {
  if (half.watched) {
    loop_->remove(half.fd.get());
    half.watched = false;
  }
  half.fd = InheritedFd();
  half.given.reset();
}

void FdEndpoint::close() {
  closeHalf(input_);
  closeHalf(output_);
  loop_ = nullptr;
}

void FdEndpoint::endWrite() {
  if (ownSocket_) {
    // It is the input, too, so that closing alone would not half-close it. Only a socket minds.
    ::shutdown(output_.fd.get(), SHUT_WR);
  }
  closeHalf(output_);
}

ssize_t FdEndpoint::read(std::span<const iovec> to) {
  const ssize_t n = input_.fd.readv(to.data(), static_cast<int>(to.size()));
  if (n == -EAGAIN) {
    readable_ = false;
  }
  return n;
}

ssize_t FdEndpoint::write(std::span<const iovec> from) {
  const ssize_t n = output_.fd.writev(from.data(), static_cast<int>(from.size()));
  if (n == -EAGAIN) {
    writable_ = false;
  }
  return n;
}

}  // namespace tsvmm::virtio::vsock
