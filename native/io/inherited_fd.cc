#include "io/inherited_fd.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

namespace tsvmm {
namespace {

[[noreturn]] void fail(int error, int fd, const char* what) {
  throw std::system_error(error, std::generic_category(), "descriptor " + std::to_string(fd) + ": " + what);
}

bool epollRefuses(int fd) {
  const Fd probe(epoll_create1(EPOLL_CLOEXEC));
  if (!probe) {
    fail(errno, fd, "epoll_create1");
  }
  epoll_event event{};
  event.events = EPOLLIN;
  return epoll_ctl(probe.get(), EPOLL_CTL_ADD, fd, &event) != 0 && errno == EPERM;
}

/// A pty's master side: opening /dev/ptmx again would make another pty.
bool isPtyMaster(int fd) {
  unsigned int number = 0;
  return ioctl(fd, TIOCGPTN, &number) == 0;
}

bool readyFor(int fd, short events) {
  pollfd entry{fd, events, 0};
  return poll(&entry, 1, 0) == 1;
}

template <typename Call>
ssize_t retry(Call call) {
  ssize_t result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  }
  return result;
}

const iovec* firstFilled(const iovec* parts, int count) {
  for (int i = 0; i < count; i++) {
    if (parts[i].iov_len != 0) {
      return parts + i;
    }
  }
  return nullptr;
}

/// This process's /proc/self/fd. In another mount namespace that path may be anybody's.
int descriptorFolder() {
  static const Fd folder(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return folder.get();
}

}  // namespace

void InheritedFd::openFolder() {
  const int folder = descriptorFolder();
  // A process that has been forked has the one of its parent. In one step, since other threads may be using
  // it.
  const Fd own(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (own && folder >= 0) {
    dup3(own.get(), folder, O_CLOEXEC);
  }
}

InheritedFd::InheritedFd(int fd, Direction direction) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) {
    fail(errno, fd, "not open");
  }
  const int access = flags & O_ACCMODE;
  const bool reading = direction == Direction::kRead;
  if ((flags & O_PATH) != 0 || (access != O_RDWR && access != (reading ? O_RDONLY : O_WRONLY))) {
    fail(EBADF, fd, reading ? "not open for reading" : "not open for writing");
  }
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    fail(errno, fd, "fstat");
  }
  terminal_ = S_ISCHR(status.st_mode) && isatty(fd) == 1;
  if (S_ISFIFO(status.st_mode) || (terminal_ && !isPtyMaster(fd))) {
    char name[16];
    std::snprintf(name, sizeof name, "%d", fd);
    fd_.reset(openat(descriptorFolder(), name,
                     (reading ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    manner_ = Manner::kNonBlocking;
  }
  if (!fd_) {
    fd_.reset(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!fd_) {
      fail(errno, fd, "fcntl(F_DUPFD_CLOEXEC)");
    }
    if (S_ISSOCK(status.st_mode)) {
      manner_ = Manner::kSocket;
    } else if (epollRefuses(fd_.get())) {
      manner_ = Manner::kAlwaysReady;
      alwaysReady_ = true;
    } else {
      manner_ = (flags & O_NONBLOCK) != 0 ? Manner::kNonBlocking : Manner::kPoll;
    }
  }
}

bool InheritedFd::inBackground() const {
  if (!terminal_) {
    return false;
  }
  const pid_t foreground = tcgetpgrp(fd_.get());
  return foreground > 0 && foreground != getpgrp();
}

ssize_t InheritedFd::readv(const iovec* parts, int count) const {
  switch (manner_) {
    case Manner::kSocket: {
      msghdr message{};
      message.msg_iov = const_cast<iovec*>(parts);
      message.msg_iovlen = static_cast<size_t>(std::min(count, IOV_MAX));
      return retry([&] { return recvmsg(fd_.get(), &message, MSG_DONTWAIT); });
    }
    case Manner::kPoll:
      if (!readyFor(fd_.get(), POLLIN)) {
        return -EAGAIN;
      }
      break;
    default:
      break;
  }
  return retry([&] { return ::readv(fd_.get(), parts, std::min(count, IOV_MAX)); });
}

ssize_t InheritedFd::writev(const iovec* parts, int count) const {
  switch (manner_) {
    case Manner::kSocket: {
      msghdr message{};
      message.msg_iov = const_cast<iovec*>(parts);
      message.msg_iovlen = static_cast<size_t>(std::min(count, IOV_MAX));
      return retry([&] { return sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL); });
    }
    case Manner::kPoll: {
      const iovec* part = firstFilled(parts, count);
      if (part == nullptr) {
        return 0;
      }
      if (!readyFor(fd_.get(), POLLOUT)) {
        return -EAGAIN;
      }
      // A pipe that is ready takes PIPE_BUF bytes without waiting; more may wait.
      return retry(
          [&] { return ::write(fd_.get(), part->iov_base, std::min<size_t>(part->iov_len, PIPE_BUF)); });
    }
    default:
      return retry([&] { return ::writev(fd_.get(), parts, std::min(count, IOV_MAX)); });
  }
}

}  // namespace tsvmm
