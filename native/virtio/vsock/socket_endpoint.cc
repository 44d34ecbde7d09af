#include "virtio/vsock/socket_endpoint.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace tsvmm::virtio::vsock {

namespace {

constexpr uint32_t kInput = EPOLLIN | EPOLLRDHUP;

size_t sizeOf(std::span<const iovec> parts) {
  size_t size = 0;
  for (const iovec& part : parts.first(std::min<size_t>(parts.size(), IOV_MAX))) {
    size += part.iov_len;
  }
  return size;
}

}  // namespace

ssize_t receiveNow(int socket, std::span<const iovec> to, bool* cut) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(to.data());
  message.msg_iovlen = std::min<size_t>(to.size(), IOV_MAX);
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (cut != nullptr) {
    *cut = n > 0 && (message.msg_flags & MSG_CTRUNC) != 0;
  }
  return n < 0 ? -errno : n;
}

ssize_t sendNow(int socket, std::span<const iovec> from) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from.data());
  message.msg_iovlen = std::min<size_t>(from.size(), IOV_MAX);
  ssize_t n;
  do {
    n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

void SocketEndpoint::start(EventLoop& loop, std::function<void()> ready) {
  ready_ = std::move(ready);
  const int error =
      loop.add(socket_.get(), kInput | EPOLLET, [weak = weak_from_this(), this](uint32_t events) {
        // Held: what `ready` does may end this endpoint.
        const auto self = weak.lock();
        if (self == nullptr || loop_ == nullptr) {
          return;
        }
        readable_ |= (events & (kInput | EPOLLHUP | EPOLLERR)) != 0;
        ending_ |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        outputBroken_ |= (events & (EPOLLHUP | EPOLLERR)) != 0;
        if ((events & EPOLLOUT) != 0) {
          writable_ = true;
          loop_->modify(socket_.get(), kInput | EPOLLET);
        }
        ready_();
      });
  if (error != 0) {
    // Out of memory or of watches: the socket cannot be served.
    readable_ = true;
    outputBroken_ = true;
    socket_.reset();
    return;
  }
  loop_ = &loop;
}

void SocketEndpoint::close() {
  if (loop_ != nullptr) {
    loop_->remove(socket_.get());
    loop_ = nullptr;
  }
  socket_.reset();
}

void SocketEndpoint::abort() {
  if (options_.onAbort == nullptr || !socket_) {
    close();
    return;
  }
  if (loop_ != nullptr) {
    loop_->remove(socket_.get());
    loop_ = nullptr;
  }
  options_.onAbort(std::move(socket_));
}

ssize_t SocketEndpoint::read(std::span<const iovec> to) {
  bool cut = false;
  const ssize_t n = receiveNow(socket_.get(), to, &cut);
  if (n == -EAGAIN) {
    readable_ = false;
  } else if (n > 0 && !ending_ && !cut && static_cast<size_t>(n) < sizeOf(to)) {
    // Nothing is left: what comes from now on is told. Who knows that the end has come reads on to it.
    readable_ = false;
  }
  return n;
}

ssize_t SocketEndpoint::write(std::span<const iovec> from) {
  const ssize_t n = sendNow(socket_.get(), from);
  if (n == -EAGAIN || (n > 0 && static_cast<size_t>(n) < sizeOf(from))) {
    writable_ = false;
    // Asked for only now: a peer that keeps up would wake us with each message that it reads.
    loop_->modify(socket_.get(), kInput | EPOLLOUT | EPOLLET);
  }
  return n;
}

void SocketEndpoint::endRead() { ::shutdown(socket_.get(), SHUT_RD); }
void SocketEndpoint::endWrite() { ::shutdown(socket_.get(), SHUT_WR); }

int connectUnix(const std::string& path, Fd& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return ENAMETOOLONG;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) {
    return errno;
  }
  int result;
  do {
    result = ::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    return errno;
  }
  socket = std::move(made);
  return 0;
}

}  // namespace tsvmm::virtio::vsock
