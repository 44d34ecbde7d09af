#include "pty.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "error.h"
#include "streams.h"

using namespace tsvmm;
using namespace tsvmm::agent;

namespace {

struct Terminal {
  Fd master;
  Fd slave;
};

Terminal openTerminal() {
  Terminal terminal;
  terminal.master.reset(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(terminal.master);
  REQUIRE(grantpt(terminal.master.get()) == 0);
  REQUIRE(unlockpt(terminal.master.get()) == 0);
  char name[64];
  REQUIRE(ptsname_r(terminal.master.get(), name, sizeof name) == 0);
  terminal.slave.reset(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(terminal.slave);
  return terminal;
}

std::string socketPath() {
  static int count = 0;
  return "/tmp/tsvmm-pty-test-" + std::to_string(getpid()) + "-" + std::to_string(++count);
}

Fd connectTo(const std::string& path) {
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  REQUIRE(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

void sendDescriptors(int socket, const int* fds, std::size_t count) {
  char byte = 'x';
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  REQUIRE(sendmsg(socket, &message, 0) == 1);
}

}  // namespace

TEST_CASE("the console socket hands over the terminal's master, and it can be resized") {
  Loop loop;
  Terminal terminal = openTerminal();
  Fd received;
  ConsoleSocket console(loop, socketPath(), [&](Fd master) {
    received = std::move(master);
    loop.stop();
  });
  const Fd caller = connectTo(console.path());
  const int master = terminal.master.get();
  sendDescriptors(caller.get(), &master, 1);
  loop.run();
  REQUIRE(received);
  CHECK(setWindowSize(received.get(), {50, 132}));
  winsize size{};
  REQUIRE(ioctl(terminal.slave.get(), TIOCGWINSZ, &size) == 0);
  CHECK(size.ws_row == 50);
  CHECK(size.ws_col == 132);
}

TEST_CASE("a message without a descriptor hands over nothing") {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const Fd near(ends[0]);
  const Fd far(ends[1]);
  sendDescriptors(far.get(), nullptr, 0);
  CHECK_FALSE(receiveDescriptor(near.get()));
}

TEST_CASE("a console socket's path has its limit") {
  Loop loop;
  CHECK_THROWS_AS(ConsoleSocket(loop, "/tmp/" + std::string(200, 'x'), [](Fd) {}), OperationError);
}

TEST_CASE("the size of what is no terminal cannot be set") {
  CHECK_FALSE(setWindowSize(STDIN_FILENO + 1000, {1, 1}));
}

TEST_CASE("a terminal's output ends when its last user goes, and nothing is lost") {
  Loop loop;
  Terminal terminal = openTerminal();
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const Fd far(ends[1]);
  REQUIRE(write(terminal.slave.get(), "bye", 3) == 3);
  terminal.slave.reset();
  Relay relay(loop, {std::move(terminal.master), EndKind::kTerminal}, {Fd(ends[0]), EndKind::kSocket},
              [&] { loop.stop(); });
  loop.run();
  char bytes[16];
  CHECK(read(far.get(), bytes, sizeof bytes) == 3);
  CHECK(read(far.get(), bytes, sizeof bytes) == 0);
}

TEST_CASE("the input's end is the end of file of a terminal that edits lines") {
  Loop loop;
  Terminal terminal = openTerminal();
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const Fd far(ends[1]);
  REQUIRE(write(far.get(), "line\n", 5) == 5);
  shutdown(far.get(), SHUT_WR);
  // A container keeps the master open until its process is gone.
  const Fd master(dup(terminal.master.get()));
  Relay relay(loop, {Fd(ends[0]), EndKind::kSocket}, {std::move(terminal.master), EndKind::kTerminal},
              [&] { loop.stop(); });
  loop.run();
  char bytes[16];
  CHECK(read(terminal.slave.get(), bytes, sizeof bytes) == 5);
  CHECK(read(terminal.slave.get(), bytes, sizeof bytes) == 0);
}
