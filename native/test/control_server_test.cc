// The server's side of the control socket against clients that keep to no rule;
// test/unit/addon/control.test.ts has the honest ones.
#include "system/control_server.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "system/control_client.h"
#include "system/unix_socket.h"

using namespace tsvmm;
using namespace tsvmm::system;

namespace {

size_t openDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count++;
  }
  return count;
}

struct Bench {
  struct Line {
    uint32_t id;
    std::string text;
    std::vector<Fd> fds;
  };

  Bench()
      : server({.onConnection = [this](uint32_t id) { connected.push_back(id); },
                .onLine =
                    [this](uint32_t id, std::string text, std::vector<Fd> fds) {
                      lines.push_back({id, std::move(text), std::move(fds)});
                      if (onLine) {
                        onLine(lines.back());
                      }
                    },
                .onEnd = [this](uint32_t id) { ended.push_back(id); }}) {
    char name[] = "/tmp/tsvmm-control-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    folder = name;
    path = folder + "/control.sock";
    REQUIRE(server.open(path) == 0);
  }
  ~Bench() { std::filesystem::remove_all(folder); }

  Fd client() {
    Fd socket;
    REQUIRE(connectUnix(path, 5000, socket) == 0);
    const size_t before = connected.size();
    until([&] { return connected.size() > before; });
    return socket;
  }
  void until(const std::function<bool()>& condition) {
    while (!condition()) {
      pollfd entry{server.fd(), POLLIN, 0};
      REQUIRE(poll(&entry, 1, 20000) == 1);
      server.serve();
    }
  }
  /// Serves what is ready.
  void settle() {
    pollfd entry{server.fd(), POLLIN, 0};
    while (poll(&entry, 1, 0) == 1) {
      server.serve();
    }
  }
  /// An honest client gets what it asks for.
  void check() {
    const Fd socket = client();
    REQUIRE(sendWithFds(socket.get(), "honest\n", {}) == 0);
    const size_t before = lines.size();
    until([&] { return lines.size() > before; });
    CHECK(lines.back().text == "honest");
    CHECK(server.send(lines.back().id, "answer") == 0);
    char bytes[16];
    CHECK(recv(socket.get(), bytes, sizeof bytes, 0) == 7);
  }

  std::string folder, path;
  std::vector<uint32_t> connected, ended;
  std::deque<Line> lines;
  std::function<void(Line&)> onLine;
  ControlServer server;
};

/// Sends `count` descriptors at once, more than sendWithFds() lets.
ssize_t sendMany(int socket, const char* text, int count) {
  std::vector<int> fds(static_cast<size_t>(count), STDERR_FILENO);
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  iovec part{const_cast<char*>(text), std::strlen(text)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

}  // namespace

TEST_CASE("control server: descriptors go with the line that they came with, and are closed on exec") {
  Bench bench;
  const Fd client = bench.client();
  const size_t before = openDescriptors();
  REQUIRE(sendWithFds(client.get(), "one\n", {0, 1}) == 0);
  REQUIRE(sendWithFds(client.get(), "two", {2}) == 0);
  REQUIRE(sendWithFds(client.get(), "\nthree\n", {}) == 0);
  bench.until([&] { return bench.lines.size() == 3; });
  CHECK(bench.lines[0].fds.size() == 2);
  CHECK(bench.lines[1].fds.size() == 1);
  CHECK(bench.lines[2].fds.empty());
  CHECK((fcntl(bench.lines[0].fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(openDescriptors() == before + 3);
  bench.lines.clear();
  CHECK(openDescriptors() == before);
}

TEST_CASE("control server: more descriptors than a message may have cut the client off, and none is kept") {
  Bench bench;
  for (const auto& [first, second] : {std::pair{64, 0}, {65, 0}, {253, 0}, {40, 40}}) {
    CAPTURE(first);
    Fd client = bench.client();
    const size_t before = openDescriptors();
    const size_t ended = bench.ended.size();
    REQUIRE(sendMany(client.get(), "a", first) == 1);
    if (second > 0) {
      REQUIRE(sendMany(client.get(), "b", second) == 1);
    }
    bench.settle();
    const bool cut = first + second > 64;
    CHECK(bench.ended.size() == ended + (cut ? 1 : 0));
    CHECK(openDescriptors() == before + (cut ? -1 : 64));
    client.reset();
    bench.settle();
    CHECK(bench.ended.size() == ended + 1);
    CHECK(openDescriptors() == before - 2);
    CHECK(bench.lines.empty());
  }
  bench.check();
}

TEST_CASE("control server: garbage, NULs, empty lines; a line without end") {
  Bench bench;
  const Fd client = bench.client();
  REQUIRE(sendWithFds(client.get(), std::string("\0\xff\x80\n\n\r\n", 7), {}) == 0);
  bench.until([&] { return bench.lines.size() == 3; });
  CHECK(bench.lines[0].text == std::string("\0\xff\x80", 3));
  CHECK(bench.lines[1].text.empty());
  CHECK(bench.lines[2].text == "\r");
  const std::string part(65536, 'x');
  while (send(client.get(), part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0 || errno == EAGAIN) {
    bench.settle();
  }
  CHECK(bench.ended == bench.connected);
  bench.check();
}

TEST_CASE("control server: who never reads is cut off, and what others get is not held up") {
  Bench bench;
  const Fd deaf = bench.client();
  const uint32_t id = bench.connected[0];
  const std::string part(1 << 20, 'x');
  int result = 0, sent = 0;
  while ((result = bench.server.send(id, part)) == 0) {
    REQUIRE(++sent < 12);
  }
  CHECK(result == -ENOBUFS);
  CHECK(bench.ended.empty());  // told from serve(), not from within send()
  bench.settle();
  CHECK(bench.ended == std::vector{id});
  CHECK(bench.server.send(id, "x") == -ENOENT);
  bench.check();

  // Closing, it keeps its answer until it reads or goes.
  Fd slow = bench.client();
  const uint32_t slowId = bench.connected.back();
  for (int i = 0; i < 4; i++) {
    CHECK(bench.server.send(slowId, part) == 0);
  }
  bench.server.close(slowId);
  bench.settle();
  const size_t before = openDescriptors();
  slow.reset();
  bench.settle();
  CHECK(openDescriptors() == before - 2);
  CHECK(bench.ended.size() == 2);  // the deaf and the honest one; not this
}

TEST_CASE("control server: a client in the middle of things may close, or be closed, or the server stop") {
  Bench bench;
  bench.onLine = [&bench](Bench::Line& line) {
    if (line.text == "close") {
      bench.server.close(line.id);
    } else if (line.text == "last word") {
      bench.server.send(line.id, "bye");
      bench.server.close(line.id);
      CHECK(bench.server.send(line.id, "more") == -ENOENT);
    } else if (line.text == "stop") {
      bench.server.stop();
    }
  };
  const size_t before = openDescriptors();
  const Fd first = bench.client();
  REQUIRE(sendWithFds(first.get(), "close\nnot delivered\n", {0}) == 0);
  bench.settle();
  CHECK(bench.lines.size() == 1);
  const Fd second = bench.client();
  REQUIRE(sendWithFds(second.get(), "last word\nnot delivered\n", {}) == 0);
  bench.settle();
  CHECK(bench.lines.size() == 2);
  char bytes[16];
  CHECK(recv(second.get(), bytes, sizeof bytes, 0) == 4);
  CHECK(recv(second.get(), bytes, sizeof bytes, 0) <= 0);
  CHECK(bench.ended.empty());
  const Fd third = bench.client(), fourth = bench.client();
  REQUIRE(sendWithFds(third.get(), "stop\nnot delivered\n", {}) == 0);
  REQUIRE(sendWithFds(fourth.get(), "stop\n", {}) == 0);
  bench.server.serve();
  CHECK(bench.lines.size() == 3);
  CHECK(bench.ended.empty());
  bench.lines.clear();
  bench.server.serve();
  CHECK(openDescriptors() <= before + 4);  // the clients' own sides
}

TEST_CASE("control server: out of descriptors it refuses, does not spin, and recovers") {
  Bench bench;
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  std::vector<Fd> fill;
  Fd waiting(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit low = limit;
  low.rlim_cur = 256;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  int fd;
  while ((fd = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0) {
    fill.emplace_back(fd);
  }
  CHECK(errno == EMFILE);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::strcpy(name.sun_path, bench.path.c_str());
  REQUIRE(connect(waiting.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  bench.settle();  // ends
  char byte;
  CHECK(recv(waiting.get(), &byte, 1, MSG_DONTWAIT) == 0);
  CHECK(bench.connected.empty());
  fill.clear();
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  bench.check();
}

TEST_CASE("control server: hundreds of connections, and all of them gone") {
  Bench bench;
  const size_t before = openDescriptors();
  {
    std::vector<Fd> clients;
    for (int i = 0; i < 200; i++) {
      clients.push_back(bench.client());
      REQUIRE(sendWithFds(clients.back().get(), "unfinished", {0}) == 0);
    }
    bench.settle();
    CHECK(openDescriptors() == before + 600);
  }
  bench.settle();
  CHECK(bench.ended.size() == 200);
  CHECK(openDescriptors() == before);
}

TEST_CASE("control client: an answer without end, or without anything") {
  for (const bool silent : {false, true}) {
    CAPTURE(silent);
    Fd listening;
    char name[] = "/tmp/tsvmm-control-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    const std::string path = std::string(name) + "/control.sock";
    REQUIRE(listenUnix(path, listening) == 0);
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      std::string answer;
      _exit(-controlRequest(path, "x", silent ? 20 : 0, answer));
    }
    pollfd entry{listening.get(), POLLIN, 0};
    REQUIRE(poll(&entry, 1, 20000) == 1);
    const Fd socket(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::string part(1 << 20, 'x');
    while (!silent && sendWithFds(socket.get(), part, {}) == 0) {
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK(WEXITSTATUS(status) == (silent ? ETIMEDOUT : EMSGSIZE));
    std::filesystem::remove_all(name);
  }
}
