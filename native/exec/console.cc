#include "exec/console.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "system/terminal.h"

namespace tsvmm::exec {
namespace {

/// tcsetattr() that is not stopped in the background (SIGTTOU): the way out has to lead somewhere.
void setAttributes(int fd, const termios& attributes) {
  sigset_t stop, before;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTTOU);
  sigprocmask(SIG_BLOCK, &stop, &before);
  while (tcsetattr(fd, TCSADRAIN, &attributes) != 0 && errno == EINTR) {
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

bool Console::open(const Options& options, std::string& error) {
  if (!options.consoleSocket.empty()) {
    return openPty(options, error);
  }
  if (options.terminal) {
    own_ = isatty(STDIN_FILENO) == 1 ? STDIN_FILENO : isatty(STDOUT_FILENO) == 1 ? STDOUT_FILENO : -1;
    makeRaw();
  }
  return true;
}

bool Console::openPty(const Options& options, std::string& error) {
  const auto failed = [&error](const char* what, int number) {
    error = std::string(what) + ": " + strerror(number);
    return false;
  };
  if (setsid() < 0 && getsid(0) != getpid()) {
    return failed("setsid", errno);
  }
  system::Pty pty;
  if (const int result =
          system::openPty(static_cast<uint16_t>(options.rows), static_cast<uint16_t>(options.columns), pty);
      result < 0) {
    return failed("cannot make a pseudo-terminal", -result);
  }
  if (const int result = system::takeControllingTerminal(pty.slave.get()); result < 0) {
    return failed("cannot take the pseudo-terminal as the controlling one", -result);
  }
  // The process's own terminal in the guest does what a line discipline has to do, and once is enough.
  termios attributes{};
  if (tcgetattr(pty.slave.get(), &attributes) == 0) {
    cfmakeraw(&attributes);
    tcsetattr(pty.slave.get(), TCSANOW, &attributes);
  }
  if (const int result = system::sendDescriptor(options.consoleSocket, pty.master.get(), "/dev/ptmx");
      result < 0) {
    return failed(("console socket " + options.consoleSocket).c_str(), -result);
  }
  slave_ = std::move(pty.slave);
  return true;
}

void Console::makeRaw() {
  if (own_ != STDIN_FILENO) {
    return;
  }
  if (!raw_ && tcgetattr(own_, &found_) != 0) {
    return;
  }
  termios attributes = found_;
  cfmakeraw(&attributes);
  // In the background this stops the program, as any other that touches its terminal, until `fg`.
  while (tcsetattr(own_, TCSADRAIN, &attributes) != 0 && errno == EINTR) {
  }
  raw_ = true;
}

void Console::restore() {
  if (raw_) {
    setAttributes(own_, found_);
    raw_ = false;
  }
}

bool Console::size(Size& size) const {
  winsize window{};
  if (ioctl(slave_ ? slave_.get() : own_, TIOCGWINSZ, &window) != 0 || window.ws_row == 0 ||
      window.ws_col == 0) {
    return false;
  }
  size = {.rows = window.ws_row, .columns = window.ws_col};
  return true;
}

}  // namespace tsvmm::exec
