#include "crun.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "error.h"
#include "io/fd.h"
#include "json.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kCrun = "/usr/bin/crun";
constexpr const char* kCrunState = "/run/crun";

/// The last error of a log in JSON lines.
std::string lastError(const std::string& log) {
  std::string message;
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = std::min(log.find('\n', begin), log.size());
    const Json line = Json::parse(log.begin() + static_cast<std::ptrdiff_t>(begin),
                                  log.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (line.is_object() && line.value("level", Json()) == "error" && line.contains("msg") &&
        line["msg"].is_string()) {
      message = line["msg"].get<std::string>();
    }
    begin = end + 1;
  }
  return message;
}

}  // namespace

std::string crunState(const std::string& id) { return std::string(kCrunState) + "/" + id; }

std::vector<std::string> crunCommand(const std::string& command, const std::string& log) {
  return {kCrun,
          std::string("--root=") + kCrunState,
          "--log=file:" + log,
          "--log-format=json",
          "--cgroup-manager=cgroupfs",
          command};
}

std::string crunRefusal(const std::string& log, int status) {
  const std::string message = lastError(readFile(log));
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
