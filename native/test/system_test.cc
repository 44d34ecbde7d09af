// Processes, terminals and netlink, as the host's commands use them.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "io/fd.h"
#include "support/read_all.h"
#include "system/netlink.h"
#include "system/process.h"
#include "system/terminal.h"

using namespace tsvmm;
using tsvmm::test::readAll;
using namespace tsvmm::system;

namespace {

Fd memory(const std::string& text) {
  Fd file(memoryFile("test", text.data(), text.size()));
  REQUIRE(file);
  return file;
}

/// What a child writes whose descriptors 1 and 2 are one pipe.
std::string outputOf(const std::function<pid_t(int out)>& start) {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const Fd out(ends[0]);
  Fd in(ends[1]);
  const pid_t pid = start(in.get());
  REQUIRE(pid > 0);
  in.reset();
  const std::string text = readAll(out.get());
  CHECK(waitPid(pid, false) == 0);
  return text;
}

const std::vector<std::string> kPath = {"PATH=/usr/bin:/bin"};
const char* const kShow =
    "for fd in 3 4 5 6; do eval \"cat <&$fd\" 2>/dev/null || echo -n none; done; ls /proc/self/fd | wc -l";

}  // namespace

TEST_CASE("spawn: descriptors in any order, also those that are in each other's place") {
  // The children's 3, 4, 5 are 5, 4, 3 of this process, or whatever else is in the way.
  const Fd first = memory("1"), second = memory("2"), third = memory("3");
  const Fd leaked(fcntl(first.get(), F_DUPFD, 0));  // not CLOEXEC, as what a caller has left open
  for (const auto& order : std::vector<std::vector<int>>{{first.get(), second.get(), third.get()},
                                                         {third.get(), second.get(), first.get()},
                                                         {second.get()},
                                                         {}}) {
    std::string expected;
    for (const int fd : order) {
      expected += fd == first.get() ? "1" : fd == second.get() ? "2" : "3";
      lseek(fd, 0, SEEK_SET);
    }
    for (size_t i = order.size(); i < 4; i++) {
      expected += "none";
    }
    const std::string text = outputOf([&](int out) {
      Program program{.path = "/bin/sh", .argv = {"sh", "-c", kShow}, .env = kPath, .fds = {-1, out, out}};
      program.fds.insert(program.fds.end(), order.begin(), order.end());
      return spawn(program, {});
    });
    CHECK(text == expected + std::to_string(4 + order.size()) + "\n");
  }
}

TEST_CASE("spawn: the first process of a PID namespace, which this process waits for by its own number") {
  if (geteuid() != 0) {
    return;
  }
  const std::string text = outputOf([](int out) {
    return spawn({.path = "/bin/sh", .argv = {"sh", "-c", "echo $$"}, .env = kPath, .fds = {-1, out, out}},
                 {.setsid = false, .cwd = {}, .ownPids = true});
  });
  CHECK(text == "1\n");
  const Program none{.path = "/nowhere", .argv = {"x"}, .env = {}, .fds = {}};
  CHECK(spawn(none, {.setsid = false, .cwd = {}, .ownPids = true}) == -ENOENT);
  // The process itself has not changed: what it starts is in its own namespace, and threads can be made.
  CHECK(outputOf([](int out) {
          return spawn(
              {.path = "/bin/sh", .argv = {"sh", "-c", "echo $$"}, .env = kPath, .fds = {-1, out, out}}, {});
        }) != "1\n");
}

TEST_CASE("spawn: signals that this process ignores or blocks are the child's by default") {
  signal(SIGUSR1, SIG_IGN);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  for (const int number : {SIGUSR1, SIGTERM}) {
    const pid_t pid =
        spawn({.path = "/bin/sleep", .argv = {"sleep", "1000"}, .env = {}, .fds = {-1, -1, -1}}, {});
    REQUIRE(pid > 0);
    kill(pid, number);
    CHECK(waitPid(pid, false) == 128 + number);
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("become: descriptors and signals; nothing changes where it fails") {
  const Fd first = memory("1"), second = memory("2");
  const std::string text = outputOf([&](int out) {
    const pid_t pid = fork();
    if (pid == 0) {
      signal(SIGPIPE, SIG_IGN);
      dup2(out, 1);
      dup2(out, 2);
      dup2(first.get(), 40);
      const int error =
          become({.path = "/no/such", .argv = {"x"}, .env = {}, .fds = {second.get(), first.get()}});
      // Not a program, though it may be executed: the kernel says so after all has been prepared.
      const int late =
          become({.path = "/proc/self/exe/x", .argv = {"x"}, .env = {}, .fds = {second.get(), first.get()}});
      if (error != -ENOENT || late != -ENOTDIR || signal(SIGPIPE, SIG_IGN) != SIG_IGN) {
        _exit(1);
      }
      become({.path = "/bin/sh",
              .argv = {"sh", "-c", kShow},
              .env = kPath,
              .fds = {-1, 1, 2, second.get(), first.get()}});
      _exit(2);
    }
    return pid;
  });
  CHECK(text == "21nonenone6\n");
}

TEST_CASE("become: what the kernel refuses at the last moment leaves the descriptors as they were") {
  char name[] = "/tmp/tsvmm-system-test-XXXXXX";
  Fd file(mkostemp(name, O_CLOEXEC));
  REQUIRE(file);
  REQUIRE(write(file.get(), "no program", 10) == 10);
  REQUIRE(fchmod(file.get(), 0755) == 0);
  file.reset();
  const Fd first = memory("1");
  const std::string text = outputOf([&](int out) {
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(out, 1);
      signal(SIGPIPE, SIG_IGN);
      close(0);
      const int error = become({.path = name, .argv = {"x"}, .env = {}, .fds = {first.get(), first.get()}});
      const bool same = error == -ENOEXEC && signal(SIGPIPE, SIG_DFL) == SIG_IGN && fcntl(0, F_GETFD) < 0 &&
                        (fcntl(1, F_GETFD) & FD_CLOEXEC) == 0;
      [[maybe_unused]] const ssize_t count = write(1, same ? "same" : "other", same ? 4 : 5);
      _exit(0);
    }
    return pid;
  });
  unlink(name);
  CHECK(text == "same");
}

TEST_CASE("memory file: sealed") {
  const Fd file = memory("text");
  CHECK(readAll(file.get()) == "text");
  CHECK(pwrite(file.get(), "x", 1, 0) < 0);
  CHECK(ftruncate(file.get(), 0) < 0);
  CHECK((fcntl(file.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(readAll(Fd(memoryFile("empty", nullptr, 0)).get()).empty());
}

TEST_CASE("pty: both ends are closed on exec, of the size that was asked for") {
  Pty pty;
  REQUIRE(openPty(24, 80, pty) == 0);
  CHECK((fcntl(pty.master.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(pty.slave.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(takeControllingTerminal(0) < 0);
  CHECK(sendDescriptor("/no/such", pty.master.get(), "x") == -ENOENT);
  CHECK(sendDescriptor("", pty.master.get(), "x") == -EINVAL);
}

TEST_CASE("netlink: an answer of many messages, none, and errors") {
  struct {
    nlmsghdr header;
    ifinfomsg link;
  } request{};
  const auto ask = [&request](uint16_t type, uint16_t flags, std::vector<std::vector<uint8_t>>& answers) {
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = flags;
    const auto* bytes = reinterpret_cast<const uint8_t*>(&request);
    return netlinkRequest(NETLINK_ROUTE, {bytes, bytes + sizeof request}, answers);
  };
  std::vector<std::vector<uint8_t>> answers;
  REQUIRE(ask(RTM_GETLINK, NLM_F_DUMP, answers) == 0);
  CHECK(!answers.empty());
  for (const auto& answer : answers) {
    nlmsghdr header;
    REQUIRE(answer.size() >= sizeof header);
    std::memcpy(&header, answer.data(), sizeof header);
    CHECK(header.nlmsg_type == RTM_NEWLINK);
    CHECK(header.nlmsg_len == answer.size());
  }
  request.link.ifi_index = 1;
  REQUIRE(ask(RTM_GETLINK, 0, answers) == 0);
  CHECK(answers.size() == 1);
  request.link.ifi_index = 0x7ffffff0;
  CHECK(ask(RTM_GETLINK, 0, answers) == -ENODEV);
  CHECK(answers.empty());
  CHECK(ask(0x7fff, 0, answers) == -EOPNOTSUPP);
  CHECK(netlinkRequest(NETLINK_ROUTE, {}, answers) == -EINVAL);
  CHECK(netlinkRequest(NETLINK_ROUTE, std::vector<uint8_t>(8, 0xff), answers) == -EINVAL);
  CHECK(netlinkRequest(1000, std::vector<uint8_t>(16, 0), answers) < 0);
}
