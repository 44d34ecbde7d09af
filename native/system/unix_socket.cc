#include "system/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

namespace tsvmm::system {
namespace {

/// A Unix socket's address has room for 107 bytes: a longer path is named below a descriptor of its folder.
struct Address {
  sockaddr_un name{};
  socklen_t length = 0;
  Fd folder;
};

int addressOf(const std::string& path, Address& address) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return -EINVAL;
  }
  std::string shown = path;
  if (path.size() >= sizeof address.name.sun_path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) {
      return -ENAMETOOLONG;
    }
    address.folder.reset(open(path.substr(0, slash + 1).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!address.folder) {
      return -errno;
    }
    shown = "/proc/self/fd/" + std::to_string(address.folder.get()) + path.substr(slash);
    if (shown.size() >= sizeof address.name.sun_path) {
      return -ENAMETOOLONG;
    }
  }
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path, shown.c_str(), shown.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + shown.size() + 1);
  return 0;
}

}  // namespace

int connectUnix(const std::string& path, unsigned timeoutMs, Fd& connected) {
  Address address;
  if (const int error = addressOf(path, address); error < 0) {
    return error;
  }
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) {
    return -errno;
  }
  if (timeoutMs != 0) {
    const timeval limit{static_cast<time_t>(timeoutMs / 1000),
                        static_cast<suseconds_t>(timeoutMs % 1000 * 1000)};
    setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }
  int result;
  do {
    result = connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.name), address.length);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    return -errno;
  }
  connected = std::move(socket);
  return 0;
}

int listenUnix(const std::string& path, Fd& listening) {
  Address address;
  if (const int error = addressOf(path, address); error < 0) {
    return error;
  }
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // On Linux the file takes its mode from the socket: it is never open to others, and no umask has to change.
  if (!socket || fchmod(socket.get(), 0600) != 0 ||
      bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.name), address.length) != 0 ||
      listen(socket.get(), 128) != 0) {
    return -errno;
  }
  listening = std::move(socket);
  return 0;
}

int sendWithFds(int socket, std::string_view bytes, const std::vector<int>& fds) {
  if (fds.size() > kMostDescriptors || bytes.empty()) {
    return -EINVAL;
  }
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  size_t sent = 0;
  while (sent < bytes.size()) {
    iovec part{const_cast<char*>(bytes.data() + sent), bytes.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (sent == 0 && !fds.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    const ssize_t result = sendmsg(socket, &message, MSG_NOSIGNAL);
    if (result < 0) {
      if (errno == EINTR) {
        continue;
      }
      return -errno;
    }
    sent += static_cast<size_t>(result);
  }
  return 0;
}

ssize_t receiveWithFds(int socket, void* to, size_t size, int flags, std::vector<Fd>& fds) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))];
  iovec part{to, size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t result;
  do {
    result = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    return -errno;
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0 || fds.size() > kMostDescriptors) {
    return -EMSGSIZE;
  }
  return result;
}

}  // namespace tsvmm::system
