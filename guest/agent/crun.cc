#include "crun.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "error.h"
#include "io/fd.h"
#include "keyed.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kCrun = "/usr/bin/crun";
constexpr const char* kCrunState = "/run/crun";

/// The last line of a text that has something in it.
std::string lastLine(const std::string& text) {
  std::string last;
  std::string_view rest = text;
  std::string_view line;
  while (nextLine(rest, line)) {
    if (!line.empty()) {
      last = line;
    }
  }
  return last;
}

}  // namespace

std::string crunState(const std::string& id) { return std::string(kCrunState) + "/" + id; }

std::vector<std::string> crunCommand(const std::string& command, const std::string& log) {
  return {kCrun, std::string("--root=") + kCrunState, "--log=file:" + log,

          "--cgroup-manager=cgroupfs", command};
}

std::string crunRefusal(const std::string& log, int status) {
  const std::string message = lastLine(readFile(log));
  if (!message.empty()) {
    return message;
  }
  return status > 128 && status <= 128 + SIGRTMAX ? "crun was ended by signal " + std::to_string(status - 128)
                                                  : "crun ended with status " + std::to_string(status);
}

void releaseProcess(const std::string& id) {
  const std::string fifo = crunState(id) + "/exec.fifo";
  // The process holds the other end. Without one ENXIO says so, instead of waiting.
  const Fd fd(open(fifo.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd || unlink(fifo.c_str()) != 0 || write(fd.get(), "", 1) != 1) {
    throw systemError("cannot start the process of container " + id + ":", fifo);
  }
}

}  // namespace tsvmm::agent
