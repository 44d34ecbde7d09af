#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>

#include "io/fd.h"

namespace tsvmm {

/// A descriptor that the process was given (standard input or output, a pipe, a terminal, a socket, a file),
/// made usable without ever waiting and without changing what others share: O_NONBLOCK is never set on it,
/// since the flag belongs to the open file description, which the shell and its other children hold too.
/// Pipes and terminals are opened a second time through /proc/self/fd; a socket is told with each call; what
/// can be neither (no rights to open it again) is asked with poll(2) before each small step.
///
/// The object owns a descriptor of its own: closing it leaves the given one alone, and the other way round.
class InheritedFd {
 public:
  enum class Direction { kRead, kWrite };

  InheritedFd() = default;
  /// Throws std::system_error if `fd` is not open, or not for that direction.
  InheritedFd(int fd, Direction direction);

  /// Opens /proc/self/fd for good. Otherwise the first pipe or terminal does: for who leaves the view of the
  /// host's files.
  static void openFolder();

  explicit operator bool() const { return static_cast<bool>(fd_); }
  /// For EventLoop::add(), unless alwaysReady().
  int get() const { return fd_.get(); }
  /// A regular file, /dev/null and the like: epoll refuses it with EPERM, and it is ready at any time.
  bool alwaysReady() const { return alwaysReady_; }
  bool isTerminal() const { return terminal_; }
  /// The controlling terminal while another job has the foreground: reading it is answered with EIO, until
  /// `fg`.
  bool inBackground() const;

  /// Bytes moved; 0 at the end of input (or for nothing asked); or a negative errno, -EAGAIN where it would
  /// have to wait.
  ssize_t readv(const iovec* parts, int count) const;
  ssize_t writev(const iovec* parts, int count) const;
  ssize_t read(void* to, size_t length) const {
    const iovec part{to, length};
    return readv(&part, 1);
  }
  ssize_t write(const void* from, size_t length) const {
    const iovec part{const_cast<void*>(from), length};
    return writev(&part, 1);
  }

 private:
  enum class Manner { kNonBlocking, kSocket, kAlwaysReady, kPoll };

  Fd fd_;
  Manner manner_ = Manner::kPoll;
  bool alwaysReady_ = false;
  bool terminal_ = false;
};

}  // namespace tsvmm
