// Whoever opens a folder waits until its owner lets him in.
#include "system/open_gate.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

using namespace tsvmm;
using namespace tsvmm::system;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    char name[] = "/tmp/tsvmm-gate-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

/// A child that lists the folder; its status is the number of files there.
pid_t lister(const fs::path& path, const OpenGate& gate) {
  const pid_t pid = fork();
  if (pid == 0) {
    close(gate.fd());  // a copy would keep the gate shut
    std::error_code error;
    int files = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path, error)) {
      files++;
    }
    _exit(error ? 100 : files);
  }
  return pid;
}

int statusOf(pid_t pid) {
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("an open gate: others wait, and see what was made meanwhile") {
  const Folder folder;
  OpenGate gate;
  const int opened = gate.open(folder.path);
  if (geteuid() != 0) {
    CHECK(opened == -EPERM);
    return;
  }
  REQUIRE(opened == 0);
  const pid_t first = lister(folder.path, gate);
  const pid_t second = lister(folder.path, gate);
  int asked = 0;
  while (asked == 0) {
    pollfd ready{.fd = gate.fd(), .events = POLLIN, .revents = 0};
    REQUIRE(poll(&ready, 1, 30000) == 1);
    gate.serve([&asked] { asked++; });
  }
  CHECK(waitpid(first, nullptr, WNOHANG) + waitpid(second, nullptr, WNOHANG) == 0);
  std::ofstream(folder.path / "made");
  gate.letIn();
  // The second may have come after that.
  gate.close();
  CHECK(statusOf(first) == 1);
  CHECK(statusOf(second) == 1);
}

TEST_CASE("an open gate that is closed holds nobody") {
  const Folder folder;
  OpenGate gate;
  if (gate.open(folder.path) != 0) {
    return;
  }
  const pid_t held = lister(folder.path, gate);
  pollfd ready{.fd = gate.fd(), .events = POLLIN, .revents = 0};
  REQUIRE(poll(&ready, 1, 30000) == 1);
  gate.close();
  CHECK(statusOf(held) == 0);
  CHECK(statusOf(lister(folder.path, gate)) == 0);
}

TEST_CASE("an open gate wants a folder") {
  OpenGate gate;
  CHECK(gate.open("/nowhere") < 0);
  CHECK(gate.open("/etc/hostname") < 0);
}
