#include "pty.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "error.h"

namespace tsvmm::agent {

ConsoleSocket::ConsoleSocket(Loop& loop, const std::string& path, std::function<void(Fd)> received)
    : loop_(loop), path_(path), received_(std::move(received)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw OperationError("the console socket's path is too long", ENAMETOOLONG, path);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener_ || bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener_.get(), 1) != 0) {
    throw systemError("cannot listen at", path);
  }
  loop_.add(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

ConsoleSocket::~ConsoleSocket() {
  loop_.remove(listener_.get());
  loop_.remove(peer_.get());
  unlink(path_.c_str());
}

void ConsoleSocket::poll() {
  if (!peer_) {
    accept();
  }
  if (peer_) {
    receive();
  }
}

void ConsoleSocket::accept() {
  const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0 || peer_) {
    // A second caller is nobody that we know.
    Fd refused(fd);
    return;
  }
  peer_.reset(fd);
  loop_.add(fd, EPOLLIN, [this](std::uint32_t) { receive(); });
}

void ConsoleSocket::receive() {
  Fd master = receiveDescriptor(peer_.get());
  if (!master && errno == EAGAIN) {
    return;
  }
  loop_.remove(peer_.get());
  if (master && received_) {
    std::exchange(received_, nullptr)(std::move(master));
  }
}

Fd receiveDescriptor(int socket) {
  std::array<char, 4096> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec data{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  errno = 0;
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0) {
    return Fd();
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return Fd();
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

bool setWindowSize(int terminal, WindowSize size) {
  winsize value{};
  value.ws_row = size.rows;
  value.ws_col = size.columns;
  return ioctl(terminal, TIOCSWINSZ, &value) == 0;
}

}  // namespace tsvmm::agent
