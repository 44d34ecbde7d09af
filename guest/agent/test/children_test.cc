#include "children.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "io/fd.h"
#include "test/support/read_all.h"

using namespace tsvmm;
using tsvmm::test::readAll;
using namespace tsvmm::agent;

namespace {

/// Runs a shell with a pipe as its standard output, and what orphans it leaves are ours.
struct Shell {
  Shell() {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    output.reset(ends[0]);
    input.reset(ends[1]);
  }
  ~Shell() { prctl(PR_SET_CHILD_SUBREAPER, 0); }

  pid_t run(const std::string& script, Children::Handler ended) {
    const pid_t pid =
        children.spawn({"/bin/sh", "-c", script}, {STDIN_FILENO, input.get()}, std::move(ended));
    input.reset();
    return pid;
  }

  /// Waits for the next child's end, which stays to be collected.
  static void waitForEnd(pid_t pid = 0) {
    siginfo_t info{};
    waitid(pid == 0 ? P_ALL : P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  }

  /// The number in the output, where `more` is read of it as well.
  pid_t readPid(const std::string& more = "") const {
    std::string text;
    char bytes[32];
    while (text.find(more) == std::string::npos || text.find_first_of("0123456789") == std::string::npos) {
      const ssize_t count = read(output.get(), bytes, sizeof bytes);
      REQUIRE(count > 0);
      text.append(bytes, static_cast<std::size_t>(count));
    }
    return std::atoi(text.c_str() + text.find_first_of("0123456789"));
  }

  Loop loop;
  Children children{loop};
  Fd output;
  Fd input;
};

/// What a process reads from until it is opened.
struct Gate {
  Gate() {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    held.reset(ends[0]);
    hold.reset(ends[1]);
  }
  void open() { hold.reset(); }

  Fd held;
  Fd hold;
};

}  // namespace

TEST_CASE("children: a program's end, as a shell puts it") {
  for (const auto& [script, expected] : {std::pair{"exit 7", 7}, {"kill -9 $$", 137}}) {
    Shell shell;
    std::optional<int> status;
    shell.run(script, [&](int ended) { status = ended; });
    Shell::waitForEnd();
    shell.children.reap();
    CHECK(status == expected);
  }
}

TEST_CASE("children: descriptors in their order, and the usual limits") {
  raiseFileLimit();
  Shell shell;
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const Fd more(ends[0]);
  const Fd other(ends[1]);
  const pid_t pid = shell.children.spawn(
      {"/bin/sh", "-c", "echo fourth >&4; echo third >&3; ulimit -n"},
      {STDIN_FILENO, shell.input.get(), STDERR_FILENO, shell.input.get(), other.get()}, [](int) {});
  shell.input.reset();
  CHECK(readAll(shell.output.get()) == "third\n1024\n");
  char bytes[16];
  CHECK(read(more.get(), bytes, sizeof bytes) == 7);
  Shell::waitForEnd(pid);
  shell.children.reap();
}

TEST_CASE("children: a program that is not there") {
  Shell shell;
  CHECK_THROWS(shell.children.spawn({"/nothing/like/it"}, {0, 1, 2}, [](int) {}));
}

TEST_CASE("children: one that a program leaves is adopted alive") {
  Shell shell;
  Gate gate;
  std::optional<int> status;
  bool alive = false;
  pid_t left = 0;
  shell.children.spawn({"/bin/sh", "-c", "(sh -c 'echo $$; read -r line <&3; exit 5' &)"},
                       {STDIN_FILENO, shell.input.get(), STDERR_FILENO, gate.held.get()},
                       [&](int) { alive = shell.children.adopt(left, [&](int its) { status = its; }); });
  left = shell.readPid();
  Shell::waitForEnd();
  shell.children.reap();
  CHECK(alive);
  CHECK_FALSE(status.has_value());
  gate.open();
  Shell::waitForEnd(left);
  shell.children.reap();
  CHECK(status == 5);
}

TEST_CASE("children: one that has ended before its program can still be adopted") {
  Shell shell;
  Gate ofProgram;
  Gate ofOrphan;
  std::optional<int> status;
  bool alive = true;
  pid_t left = 0;
  // The shell waits for the subshell in between, whose end makes the other our own.
  const pid_t program = shell.children.spawn(
      {"/bin/sh", "-c", "(sh -c 'echo $$; read -r line <&4; exit 5' &); echo left; read -r line <&3"},
      {STDIN_FILENO, shell.input.get(), STDERR_FILENO, ofProgram.held.get(), ofOrphan.held.get()}, [&](int) {
        alive = shell.children.adopt(left, [&](int its) {
          status = its;
          shell.loop.stop();
        });
      });
  left = shell.readPid("left");
  ofOrphan.open();
  Shell::waitForEnd(left);
  shell.children.reap();
  ofProgram.open();
  Shell::waitForEnd(program);
  shell.children.reap();
  CHECK_FALSE(alive);
  CHECK_FALSE(status.has_value());
  shell.loop.run();
  CHECK(status == 5);
}

TEST_CASE("children: one whose end nobody saw is not waited for") {
  Shell shell;
  std::optional<int> status;
  // A number that no process has.
  CHECK_FALSE(shell.children.adopt(0x3ffffffe, [&](int ended) {
    status = ended;
    shell.loop.stop();
  }));
  shell.loop.run();
  CHECK(status == 255);
}

TEST_CASE("children: nobody is told of what was forgotten") {
  Shell shell;
  const pid_t pid = shell.run("exit 1", [](int) { FAIL("told"); });
  shell.children.forget(pid);
  Shell::waitForEnd();
  shell.children.reap();
}
