// tsvmm-exec as a program, with a sandbox that is played here.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "support/read_all.h"
#include "system/control_server.h"
#include "system/process.h"
#include "system/terminal.h"
#include "system/unix_socket.h"

using namespace tsvmm;
using tsvmm::test::readAll;
using namespace tsvmm::system;

namespace {

constexpr const char* kRunning = R"({"jsonrpc":"2.0","id":1,"result":{"pid":9}})";

std::string exited(int status) {
  return R"({"jsonrpc":"2.0","method":"exit","params":{"status":)" + std::to_string(status) + "}}";
}

struct Folder {
  Folder() {
    char name[] = "/tmp/tsvmm-exec-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
  std::string path;
};

std::pair<Fd, Fd> makePipe() {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

struct Call {
  uint32_t id;
  std::string line;
  std::vector<Fd> fds;
};

/// What came over the control socket, in its order.
class Sandbox {
 public:
  explicit Sandbox(const std::string& path)
      : server_({.onConnection = [](uint32_t) {},
                 .onLine =
                     [this](uint32_t id, std::string line, std::vector<Fd> fds) {
                       calls_.push_back({id, std::move(line), std::move(fds)});
                     },
                 .onEnd = [this](uint32_t) { ended_++; }}) {
    REQUIRE(server_.open(path) == 0);
  }
  void until(const std::function<bool()>& condition) {
    while (!condition()) {
      pollfd entry{server_.fd(), POLLIN, 0};
      REQUIRE(poll(&entry, 1, 20000) == 1);
      server_.serve();
    }
  }
  Call next() {
    until([this] { return !calls_.empty(); });
    Call call = std::move(calls_.front());
    calls_.pop_front();
    return call;
  }
  /// Serves as long as the child runs; its status.
  int wait(pid_t pid) {
    for (;;) {
      const int status = waitPid(pid, true);
      if (status != -EAGAIN) {
        return status;
      }
      pollfd entry{server_.fd(), POLLIN, 0};
      if (poll(&entry, 1, 10) == 1) {
        server_.serve();
      }
    }
  }
  void waitForEnd() {
    until([this] { return ended_ > 0; });
    ended_--;
  }
  ControlServer& server() { return server_; }

 private:
  ControlServer server_;
  std::deque<Call> calls_;
  int ended_ = 0;
};

struct Start {
  std::vector<std::string> options = {};
  int in = -1, out = -1, err = -1;
  int report = -1;
  std::vector<int> preserved = {};
  bool setsid = false;
  std::string request = R"({"jsonrpc":"2.0","id":1,"method":"exec"})";
};

pid_t start(const std::string& socket, const Start& given) {
  const Fd request(memoryFile("request", given.request.data(), given.request.size()));
  REQUIRE(request);
  Program program{.path = EXEC_PROGRAM,
                  .argv = {"tsvmm-exec", socket},
                  .env = {"ASAN_OPTIONS=detect_leaks=0"},
                  .fds = {given.in, given.out, given.err, request.get()}};
  program.argv.insert(program.argv.end(), given.options.begin(), given.options.end());
  if (given.report >= 0) {
    program.argv.push_back("--report");
    program.fds.push_back(given.report);
  }
  if (!given.preserved.empty()) {
    program.argv.insert(program.argv.end(), {"--preserve", std::to_string(given.preserved.size())});
    program.fds.insert(program.fds.end(), given.preserved.begin(), given.preserved.end());
  }
  const pid_t pid = spawn(program, {.setsid = given.setsid, .cwd = {}});
  REQUIRE(pid > 0);
  return pid;
}

bool sameFile(int one, int other) {
  struct stat first {
  }, second{};
  return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_ino == second.st_ino &&
         first.st_dev == second.st_dev && first.st_rdev == second.st_rdev;
}

/// The other end of a console socket.
class ConsoleSocket {
 public:
  explicit ConsoleSocket(const std::string& path) { REQUIRE(listenUnix(path, listening_) == 0); }
  Fd take() {
    pollfd entry{listening_.get(), POLLIN, 0};
    REQUIRE(poll(&entry, 1, 20000) == 1);
    const Fd socket(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char name[64];
    std::vector<Fd> fds;
    REQUIRE(receiveWithFds(socket.get(), name, sizeof name, 0, fds) > 0);
    REQUIRE(fds.size() == 1);
    return std::move(fds[0]);
  }

 private:
  Fd listening_;
};

}  // namespace

TEST_CASE("exec: request, descriptors and status") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  auto [outRead, outWrite] = makePipe();
  auto [inRead, inWrite] = makePipe();
  auto [keptRead, keptWrite] = makePipe();
  Start given{
      .in = inRead.get(), .out = outWrite.get(), .err = outWrite.get(), .preserved = {keptWrite.get()}};
  given.request = R"({"method":"exec",
    "text":")" + std::string(100000, 'x') +
                  "\"}\n";
  const pid_t pid = start(folder / "control.sock", given);
  const Call call = sandbox.next();
  std::string expected = given.request;
  for (char& character : expected) {
    character = character == '\n' ? ' ' : character;
  }
  CHECK(call.line == expected);
  REQUIRE(call.fds.size() == 4);
  CHECK(sameFile(call.fds[0].get(), inRead.get()));
  CHECK(sameFile(call.fds[1].get(), outWrite.get()));
  CHECK(sameFile(call.fds[2].get(), outWrite.get()));
  CHECK(sameFile(call.fds[3].get(), keptWrite.get()));
  for (const Fd& fd : call.fds) {
    CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
  sandbox.server().send(call.id, kRunning);
  sandbox.server().send(call.id, exited(42));
  sandbox.server().close(call.id);
  CHECK(sandbox.wait(pid) == 42);
}

TEST_CASE("exec: refused, no sandbox, a sandbox that vanishes or talks nonsense") {
  const Folder folder;
  const auto outcome = [&folder](const std::function<void(Sandbox&, const Call&)>& play) {
    Sandbox sandbox(folder / "control.sock");
    auto [read, write] = makePipe();
    const pid_t pid = start(folder / "control.sock", {.err = write.get()});
    write.reset();
    {
      const Call call = sandbox.next();
      play(sandbox, call);
    }
    const int status = sandbox.wait(pid);
    std::filesystem::remove(folder / "control.sock");
    return std::to_string(status) + " " + readAll(read.get());
  };
  CHECK(outcome([](Sandbox& sandbox, const Call& call) {
          sandbox.server().send(call.id, R"({"id":1,"error":{"code":1,"message":"no such user: \"x\"\n"}})");
        }) == "255 tsvmm: no such user: \"x\"\n");
  CHECK(outcome([](Sandbox& sandbox, const Call&) { sandbox.server().stop(); }) ==
        "255 tsvmm: the container's sandbox has gone without an answer\n");
  CHECK(outcome([](Sandbox& sandbox, const Call& call) {
          sandbox.server().send(call.id, kRunning);
          sandbox.server().close(call.id);
        }) == "255 tsvmm: the container's sandbox has gone\n");
  CHECK(outcome([](Sandbox& sandbox, const Call& call) { sandbox.server().send(call.id, "{\"result\""); }) ==
        "255 tsvmm: the sandbox's answer is not one\n");
  CHECK(outcome([](Sandbox& sandbox, const Call& call) {
          sandbox.server().send(call.id, std::string(400000, 'x'));
        }) == "255 tsvmm: the sandbox's answer is too long\n");
  CHECK(outcome([](Sandbox& sandbox, const Call& call) { sandbox.server().send(call.id, exited(0)); }) ==
        "255 tsvmm: the process ended before it ran\n");

  auto [read, write] = makePipe();
  const pid_t pid = start(folder / "none.sock", {.err = write.get()});
  write.reset();
  CHECK(readAll(read.get()) == "tsvmm: the container's sandbox is not running\n");
  CHECK(waitPid(pid, false) == 255);
}

TEST_CASE("exec: signals are sent on") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  const pid_t pid = start(folder / "control.sock", {});
  const Call call = sandbox.next();
  kill(pid, SIGUSR1);  // waits until the process runs
  sandbox.server().send(call.id, kRunning);
  CHECK(sandbox.next().line == R"({"jsonrpc":"2.0","method":"signal","params":{"signal":10}})");
  for (const int number :
       {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2, SIGTSTP, SIGPIPE, SIGRTMAX, SIGSEGV, SIGCONT}) {
    kill(pid, number);
    CHECK(sandbox.next().line ==
          R"({"jsonrpc":"2.0","method":"signal","params":{"signal":)" + std::to_string(number) + "}}");
  }
  // An error that is no answer to the request is of one of these, come too late.
  sandbox.server().send(call.id,
                        R"({"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"no such process"}})");
  sandbox.server().send(call.id, exited(0));
  CHECK(sandbox.wait(pid) == 0);
}

TEST_CASE("exec: a signal before the process runs ends it") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  auto [read, write] = makePipe();
  const pid_t pid = start(folder / "control.sock", {.report = write.get()});
  write.reset();
  const Call call = sandbox.next();
  kill(pid, SIGTERM);
  CHECK(sandbox.wait(pid) == 128 + SIGTERM);
  CHECK(readAll(read.get()) == "ended by signal 15 before the process ran\n");
  sandbox.waitForEnd();
}

TEST_CASE("exec: killed, its connection closes") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  const pid_t pid = start(folder / "control.sock", {});
  const Call call = sandbox.next();
  sandbox.server().send(call.id, kRunning);
  kill(pid, SIGKILL);
  sandbox.waitForEnd();
  CHECK(waitPid(pid, false) == 128 + SIGKILL);
}

TEST_CASE("exec: pid file and report, in this order, and nothing of the output is kept open") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  auto [reportRead, reportWrite] = makePipe();
  auto [outRead, outWrite] = makePipe();
  auto [keptRead, keptWrite] = makePipe();
  const std::string pidFile = folder / "pid";
  std::ofstream(pidFile) << "an old one, longer than a number";
  const pid_t pid = start(folder / "control.sock", {.options = {"--pid-file", pidFile},
                                                    .out = outWrite.get(),
                                                    .err = outWrite.get(),
                                                    .report = reportWrite.get(),
                                                    .preserved = {keptWrite.get()}});
  reportWrite.reset();
  outWrite.reset();
  keptWrite.reset();
  Call call = sandbox.next();
  CHECK(call.fds.size() == 4);
  sandbox.server().send(call.id, kRunning);
  CHECK(readAll(reportRead.get()) == "ok\n");
  std::string text;
  std::getline(std::ifstream(pidFile), text);
  CHECK(text == std::to_string(pid));
  call.fds.clear();
  CHECK(readAll(outRead.get()).empty());  // ends here, though the program runs
  CHECK(readAll(keptRead.get()).empty());
  CHECK(waitPid(pid, true) == -EAGAIN);
  sandbox.server().send(call.id, exited(3));
  CHECK(sandbox.wait(pid) == 3);
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path)) {
    files++;
  }
  CHECK(files == 2);
}

TEST_CASE("exec: a pid file that cannot be written, a refusal: reported instead") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  auto [read, write] = makePipe();
  pid_t pid =
      start(folder / "control.sock", {.options = {"--pid-file", folder / "no/pid"}, .report = write.get()});
  write.reset();
  sandbox.server().send(sandbox.next().id, kRunning);
  CHECK(readAll(read.get()) == "pid file " + (folder / "no/pid") + ": No such file or directory\n");
  CHECK(sandbox.wait(pid) == 255);
  sandbox.waitForEnd();

  auto [secondRead, secondWrite] = makePipe();
  pid = start(folder / "control.sock",
              {.options = {"--pid-file", folder / "pid"}, .report = secondWrite.get()});
  secondWrite.reset();
  sandbox.server().send(sandbox.next().id, R"({"error":{"message":"no"}})");
  CHECK(readAll(secondRead.get()) == "no\n");
  CHECK(sandbox.wait(pid) == 255);
  CHECK(!std::filesystem::exists(folder / "pid"));
}

TEST_CASE("exec: a console socket gets the master of a pty whose size is followed") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  ConsoleSocket console(folder / "console.sock");
  const pid_t pid =
      start(folder / "control.sock",
            {.options = {"--console-socket", folder / "console.sock", "--size", "24x80"}, .setsid = true});
  Fd master = console.take();
  Call call = sandbox.next();
  REQUIRE(call.fds.size() == 2);
  winsize size{};
  REQUIRE(ioctl(call.fds[0].get(), TIOCGWINSZ, &size) == 0);
  CHECK(size.ws_row == 24);
  CHECK(size.ws_col == 80);
  sandbox.server().send(call.id, kRunning);
  CHECK(sandbox.next().line == R"({"jsonrpc":"2.0","method":"resize","params":{"rows":24,"columns":80}})");
  size.ws_row = 50;
  size.ws_col = 132;
  REQUIRE(ioctl(master.get(), TIOCSWINSZ, &size) == 0);
  CHECK(sandbox.next().line == R"({"jsonrpc":"2.0","method":"resize","params":{"rows":50,"columns":132}})");
  // What is written to the slave is what the master reads, as it is for conmon.
  REQUIRE(write(call.fds[1].get(), "hello", 5) == 5);
  char bytes[16];
  CHECK(read(master.get(), bytes, sizeof bytes) == 5);
  // Who holds the master goes: the session's leader is told by SIGHUP, and the process by it.
  master.reset();
  CHECK(sandbox.next().line == R"({"jsonrpc":"2.0","method":"signal","params":{"signal":1}})");
  sandbox.server().send(call.id, exited(129));
  CHECK(sandbox.wait(pid) == 129);
}

TEST_CASE("exec: a console socket that is not there") {
  const Folder folder;
  auto [read, write] = makePipe();
  const pid_t pid =
      start(folder / "control.sock",
            {.options = {"--console-socket", folder / "none.sock"}, .report = write.get(), .setsid = true});
  write.reset();
  CHECK(readAll(read.get()) == "console socket " + (folder / "none.sock") + ": No such file or directory\n");
  CHECK(waitPid(pid, false) == 255);
}

TEST_CASE("exec: its own terminal is raw while the process runs, and restored whatever ends it") {
  const Folder folder;
  Pty pty;
  REQUIRE(openPty(30, 100, pty) == 0);
  const auto isRaw = [&pty] {
    termios attributes{};
    REQUIRE(tcgetattr(pty.slave.get(), &attributes) == 0);
    return (attributes.c_lflag & (ICANON | ECHO | ISIG)) == 0;
  };
  const auto begin = [&](Sandbox&) {
    return start(
        folder / "control.sock",
        {.options = {"--terminal"}, .in = pty.slave.get(), .out = pty.slave.get(), .err = pty.slave.get()});
  };
  {
    Sandbox sandbox(folder / "control.sock");
    const pid_t pid = begin(sandbox);
    const Call call = sandbox.next();
    CHECK(call.fds.size() == 2);
    CHECK(isRaw());
    sandbox.server().send(call.id, kRunning);
    CHECK(sandbox.next().line == R"({"jsonrpc":"2.0","method":"resize","params":{"rows":30,"columns":100}})");
    winsize size{.ws_row = 31, .ws_col = 101, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(ioctl(pty.slave.get(), TIOCSWINSZ, &size) == 0);
    kill(pid, SIGWINCH);  // the terminal is not the controlling one of anybody here
    CHECK(sandbox.next().line == R"({"jsonrpc":"2.0","method":"resize","params":{"rows":31,"columns":101}})");
    sandbox.server().send(call.id, exited(5));
    CHECK(sandbox.wait(pid) == 5);
    CHECK(!isRaw());
    std::filesystem::remove(folder / "control.sock");
  }
  for (const bool running : {false, true}) {
    CAPTURE(running);
    Sandbox sandbox(folder / "control.sock");
    const pid_t pid = begin(sandbox);
    const Call call = sandbox.next();
    CHECK(isRaw());
    if (running) {
      sandbox.server().send(call.id, kRunning);
      sandbox.next();
    }
    sandbox.server().stop();
    CHECK(waitPid(pid, false) == 255);
    CHECK(!isRaw());
    std::filesystem::remove(folder / "control.sock");
  }
  Sandbox sandbox(folder / "control.sock");
  const pid_t pid = begin(sandbox);
  const Call call = sandbox.next();
  kill(pid, SIGINT);
  CHECK(sandbox.wait(pid) == 130);
  CHECK(!isRaw());
}

TEST_CASE("exec: fifty at once") {
  const Folder folder;
  Sandbox sandbox(folder / "control.sock");
  std::vector<std::pair<pid_t, int>> children;
  for (int i = 0; i < 50; i++) {
    Start given;
    given.request = "{\"n\":" + std::to_string(i) + "}";
    children.emplace_back(start(folder / "control.sock", given), i);
  }
  for (int i = 0; i < 50; i++) {
    const Call call = sandbox.next();
    sandbox.server().send(call.id, kRunning);
    sandbox.server().send(call.id, exited(std::stoi(call.line.substr(5))));
    sandbox.server().close(call.id);
  }
  for (const auto& [pid, status] : children) {
    CHECK(sandbox.wait(pid) == status);
  }
}

TEST_CASE("exec: a sandbox that does not read loses no signal and no end") {
  const Folder folder;
  Fd listening;
  REQUIRE(listenUnix(folder / "control.sock", listening) == 0);
  const pid_t pid = start(folder / "control.sock", {});
  pollfd entry{listening.get(), POLLIN, 0};
  REQUIRE(poll(&entry, 1, 20000) == 1);
  const Fd socket(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(sendWithFds(socket.get(), std::string(kRunning) + "\n", {}) == 0);
  for (int i = 0; i < 5000; i++) {
    kill(pid, SIGRTMIN + i % 20);
  }
  REQUIRE(sendWithFds(socket.get(), exited(9) + "\n", {}) == 0);
  CHECK(waitPid(pid, false) == 9);
}
