#include "system/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "system/unix_socket.h"

namespace tsvmm::system {

int openPty(uint16_t rows, uint16_t columns, Pty& pty) {
  Fd master(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  int unlocked = 0;
  if (!master || ioctl(master.get(), TIOCSPTLCK, &unlocked) != 0) {
    return -errno;
  }
  Fd slave(ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) {
    return -errno;
  }
  if (rows != 0 || columns != 0) {
    winsize size{};
    size.ws_row = rows;
    size.ws_col = columns;
    if (ioctl(slave.get(), TIOCSWINSZ, &size) != 0) {
      return -errno;
    }
  }
  pty.master = std::move(master);
  pty.slave = std::move(slave);
  return 0;
}

int sendDescriptor(const std::string& path, int fd, const std::string& name) {
  Fd socket;
  if (const int error = connectUnix(path, 10000, socket); error < 0) {
    return error == -EAGAIN ? -ETIMEDOUT : error;
  }
  return sendWithFds(socket.get(), name.empty() ? std::string(1, '\0') : name, {fd});
}

int takeControllingTerminal(int fd) { return ioctl(fd, TIOCSCTTY, 0) == 0 ? 0 : -errno; }

}  // namespace tsvmm::system
