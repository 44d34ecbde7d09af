// The agent: the first process of a tsvmm guest. It connects to the host, makes an ordinary Linux of the
// initramfs while the host answers, and then does what docs/agent-protocol.md says.

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "agent.h"
#include "children.h"
#include "error.h"
#include "io/fd.h"
#include "loop.h"
#include "modules.h"
#include "mounts.h"
#include "streams.h"

namespace tsvmm::agent {
namespace {

/// The host's port for the control connection.
constexpr std::uint32_t kControlPort = 1024;
constexpr const char* kModules = "/etc/tsvmm/modules";

void print(const std::string& message) {
  const std::string line = "tsvmm-agent: " + message + "\n";
  const Fd console(open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC));
  const int fd = console ? console.get() : STDERR_FILENO;
  [[maybe_unused]] const ssize_t written = write(fd, line.data(), line.size());
  // A power-off does not wait for the serial port.
  tcdrain(fd);
}

[[noreturn]] void powerOff() {
  sync();
  reboot(RB_POWER_OFF);
  // A machine that cannot be switched off can still be reset, which ends it as well.
  reboot(RB_AUTOBOOT);
  for (;;) {
    pause();
  }
}

std::uint64_t bootTime() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

void bringUpLoopback() {
  const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (!fd || ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) {
    throw systemError("cannot bring up the interface", "lo");
  }
}

bool hasWord(const std::string& text, const std::string& word) {
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find_first_of(" \n", begin);
    end = end == std::string::npos ? text.size() : end;
    if (text.compare(begin, end - begin, word) == 0) {
      return true;
    }
    begin = end + 1;
  }
  return false;
}

/// Blocks SIGCHLD and returns the descriptor that reports it instead.
Fd watchChildren() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  Fd fd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!fd) {
    throw systemError("cannot watch child processes", "");
  }
  return fd;
}

void serve(std::uint64_t bootNs) {
  std::vector<std::string> warnings = loadModules(kModules);
  Fd connection = startConnect(kControlPort);
  const Fd children = watchChildren();
  leaveRootfs();
  for (std::string& warning : mountSystem()) {
    warnings.push_back(std::move(warning));
  }
  raiseFileLimit();
  try {
    bringUpLoopback();
  } catch (const OperationError& error) {
    warnings.emplace_back(error.what());
  }
  const bool debug = hasWord(readFile("/proc/cmdline"), "tsvmm.debug");
  for (const std::string& warning : warnings) {
    if (debug) {
      print(warning);
    }
  }

  Loop loop;
  Agent agent(loop, std::move(connection), bootNs);
  loop.add(children.get(), EPOLLIN, [&](std::uint32_t) {
    signalfd_siginfo info;
    while (read(children.get(), &info, sizeof info) == sizeof info) {
    }
    agent.reap();
  });
  agent.ready(warnings);
  if (debug) {
    print("ready");
  }
  loop.run();
  // The host that closes the connection after machine.shutdown is done with us, and says nothing.
  if (debug) {
    print("powering off: " + agent.reason());
  }
}

}  // namespace
}  // namespace tsvmm::agent

int main() {
  using namespace tsvmm::agent;
  const std::uint64_t bootNs = bootTime();
  try {
    serve(bootNs);
  } catch (const std::exception& error) {
    print(error.what());
  }
  powerOff();
}
