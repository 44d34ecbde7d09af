#include "control.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace tsvmm::agent {

namespace {

/// What may wait for a host that does not read. Our messages are small; more than this is a host that hangs.
constexpr std::size_t kMaxUnsent = 8u << 20;

}  // namespace

Control::Control(Loop& loop, Fd connection, Events events)
    : loop_(loop), connection_(std::move(connection)), events_(std::move(events)) {
  loop_.add(connection_.get(), EPOLLIN | EPOLLOUT, [this](std::uint32_t seen) { onEvents(seen); });
}

Control::~Control() { loop_.remove(connection_.get()); }

void Control::send(const std::string& message) {
  if (closed_) {
    return;
  }
  unsent_ += message;
  if (unsent_.size() > kMaxUnsent) {
    close("the host does not read");
  } else if (connected_) {
    flush();
  }
}

void Control::onEvents(std::uint32_t events) {
  if (!connected_) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      close(std::string("the host cannot be reached: ") + std::strerror(error));
      return;
    }
    connected_ = true;
  }
  if ((events & EPOLLOUT) != 0) {
    flush();
  }
  if (!closed_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    receive();
  }
}

void Control::receive() {
  std::array<char, 16384> bytes;
  const ssize_t count = recv(connection_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (count <= 0) {
    close(count == 0 ? "the host closed the control connection"
                     : std::string("the control connection broke: ") + std::strerror(errno));
    return;
  }
  if (!reader_.append({bytes.data(), static_cast<std::size_t>(count)})) {
    close("the host sent a line of more than 4 MiB");
    return;
  }
  while (!closed_) {
    const auto line = reader_.next();
    if (!line) {
      break;
    }
    events_.line(*line);
  }
}

void Control::flush() {
  while (!unsent_.empty()) {
    const ssize_t count =
        ::send(connection_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      unsent_.erase(0, static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      close(std::string("the control connection broke: ") + std::strerror(errno));
      return;
    }
  }
  loop_.modify(connection_.get(), EPOLLIN | (unsent_.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT)));
}

void Control::close(const std::string& reason) {
  if (!closed_) {
    closed_ = true;
    loop_.remove(connection_.get());
    events_.closed(reason);
  }
}

}  // namespace tsvmm::agent
