#include "streams.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>
// After sys/socket.h, whose sockaddr it uses.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "error.h"

namespace tsvmm::agent {

namespace {

constexpr std::size_t kBufferSize = 64 * 1024;
/// Rounds of one turn, so that a fast stream leaves the others their share.
constexpr int kRounds = 16;
/// A busy host may be slow to answer; one that isn't there refuses at once.
constexpr int kConnectSeconds = 60;

void setNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    throw systemError("cannot make a stream non-blocking", "");
  }
}

/// A terminal that edits lines takes ^D (or what it was set to) for the end of the input.
void writeEndOfFile(int terminal) {
  termios settings{};
  if (tcgetattr(terminal, &settings) == 0 && (settings.c_lflag & ICANON) != 0) {
    const char end = static_cast<char>(settings.c_cc[VEOF]);
    // A full terminal has unread lines: its reader has not come to the end yet, and never will through us.
    [[maybe_unused]] const ssize_t written = write(terminal, &end, 1);
  }
}

}  // namespace

Relay::Relay(Loop& loop, RelayEnd source, RelayEnd sink, std::function<void()> done)
    : loop_(loop), source_(std::move(source)), sink_(std::move(sink)), done_(std::move(done)) {
  setNonBlocking(source_.fd.get());
  setNonBlocking(sink_.fd.get());
  update();
}

Relay::~Relay() {
  loop_.remove(source_.fd.get());
  loop_.remove(sink_.fd.get());
}

void Relay::abort() {
  sinkClosed_ = true;
  update();
}

void Relay::drain() {
  int count = 0;
  if (finished_ || sourceEnded_ || source_.kind != EndKind::kPipe ||
      ioctl(source_.fd.get(), FIONREAD, &count) != 0) {
    return;
  }
  left_ = static_cast<std::size_t>(count);
  sourceEnded_ = count == 0;
  update();
}

void Relay::onSource() {
  if (buffer_.empty()) {
    buffer_.resize(kBufferSize);
  }
  for (int round = 0; round < kRounds && !sourceEnded_ && !sinkClosed_; ++round) {
    const ssize_t count =
        read(source_.fd.get(), buffer_.data(), std::min(buffer_.size(), left_.value_or(buffer_.size())));
    if (count > 0) {
      begin_ = 0;
      end_ = static_cast<std::size_t>(count);
      if (left_) {
        *left_ -= end_;
        sourceEnded_ = *left_ == 0;
      }
      if (!flush()) {
        break;
      }
    } else if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
      break;
    } else {
      // Any error ends a stream: EIO is a terminal's way, ECONNRESET that of a host that went away.
      sourceEnded_ = true;
    }
  }
  update();
}

void Relay::onSink(std::uint32_t events) {
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    sinkClosed_ = true;
  } else if ((events & EPOLLRDHUP) != 0) {
    sinkClosed_ = sinkIsClosed();
    ignoreHalfClose_ = true;
  }
  if (!sinkClosed_) {
    flush();
  }
  update();
}

bool Relay::flush() {
  while (begin_ < end_) {
    const char* from = buffer_.data() + begin_;
    const ssize_t count = sink_.kind == EndKind::kSocket
                              ? send(sink_.fd.get(), from, end_ - begin_, MSG_NOSIGNAL | MSG_DONTWAIT)
                              : write(sink_.fd.get(), from, end_ - begin_);
    if (count >= 0) {
      begin_ += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      sinkClosed_ = true;
      return false;
    }
  }
  return true;
}

/// A peer that still reads takes a write of nothing.
bool Relay::sinkIsClosed() const {
  return send(sink_.fd.get(), "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN;
}

void Relay::endSink() {
  switch (sink_.kind) {
    case EndKind::kPipe:
      break;
    case EndKind::kSocket:
      // Closing alone would not do: a terminal's connection has a second descriptor for its other direction.
      shutdown(sink_.fd.get(), SHUT_WR);
      break;
    case EndKind::kTerminal:
      writeEndOfFile(sink_.fd.get());
      break;
  }
}

void Relay::update() {
  if (finished_) {
    return;
  }
  const bool pending = begin_ < end_;
  if (sinkClosed_ || (sourceEnded_ && !pending)) {
    finish();
    return;
  }
  // A source whose bytes we cannot take is not watched at all: its hang-up would be reported for ever.
  const bool read = !pending && !sourceEnded_;
  if (read && !loop_.watches(source_.fd.get())) {
    loop_.add(source_.fd.get(), EPOLLIN, [this](std::uint32_t) { onSource(); });
  } else if (!read) {
    loop_.remove(source_.fd.get());
  }
  std::uint32_t events = pending ? static_cast<std::uint32_t>(EPOLLOUT) : 0;
  if (sink_.kind == EndKind::kSocket && !ignoreHalfClose_) {
    events |= EPOLLRDHUP;
  }
  if (loop_.watches(sink_.fd.get())) {
    loop_.modify(sink_.fd.get(), events);
  } else {
    loop_.add(sink_.fd.get(), events, [this](std::uint32_t seen) { onSink(seen); });
  }
}

void Relay::finish() {
  finished_ = true;
  loop_.remove(source_.fd.get());
  loop_.remove(sink_.fd.get());
  if (!sinkClosed_) {
    endSink();
  }
  if (source_.kind == EndKind::kSocket) {
    shutdown(source_.fd.get(), SHUT_RD);
  }
  source_.fd.reset();
  sink_.fd.reset();
  buffer_ = {};
  // The owner may destroy this relay in `done`.
  loop_.post(std::move(done_));
}

Fd openNull() {
  Fd fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!fd) {
    throw systemError("cannot open", "/dev/null");
  }
  return fd;
}

Fd startConnect(std::uint32_t port) {
  Fd fd(socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    throw systemError("cannot create a vsock socket", "");
  }
  timeval timeout{};
  timeout.tv_sec = kConnectSeconds;
  setsockopt(fd.get(), AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, sizeof timeout);
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_HOST;
  address.svm_port = port;
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
      errno != EINPROGRESS) {
    throw systemError("cannot connect to the host's port", std::to_string(port));
  }
  return fd;
}

void finishConnect(int fd, const char* name) {
  pollfd wait{fd, POLLOUT, 0};
  int ready = 0;
  do {
    ready = poll(&wait, 1, (kConnectSeconds + 5) * 1000);
  } while (ready < 0 && errno == EINTR);
  int error = ready > 0 ? 0 : ETIMEDOUT;
  socklen_t size = sizeof error;
  if (ready > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
    error = errno;
  }
  if (error != 0) {
    throw systemError("cannot connect to the host for", name, error);
  }
}

}  // namespace tsvmm::agent
