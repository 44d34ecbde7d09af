#include "io/byte_stream.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <future>
#include <string>
#include <system_error>

#include "io/inherited_fd.h"

using namespace tsvmm;
using Direction = InheritedFd::Direction;

namespace {

struct Pipe {
  Pipe() {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
  Fd read, write;
};

bool blocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0; }

}  // namespace

TEST_CASE("inherited descriptor: a pipe never waits and keeps its flags") {
  Pipe pipe;
  const InheritedFd in(pipe.read.get(), Direction::kRead), out(pipe.write.get(), Direction::kWrite);
  char byte;
  CHECK(in.read(&byte, 1) == -EAGAIN);
  CHECK(!in.alwaysReady());
  const std::string block(4096, 'x');
  size_t written = 0;
  ssize_t count;
  while ((count = out.write(block.data(), block.size())) > 0) {
    written += static_cast<size_t>(count);
  }
  CHECK(count == -EAGAIN);
  CHECK(written >= 4096);
  CHECK(blocking(pipe.read.get()));
  CHECK(blocking(pipe.write.get()));
}

TEST_CASE("inherited descriptor: the ends of a pipe") {
  Pipe pipe;
  {
    const InheritedFd in(pipe.read.get(), Direction::kRead);
    REQUIRE(write(pipe.write.get(), "last", 4) == 4);
    pipe.write.reset();
    char bytes[8];
    CHECK(in.read(bytes, sizeof bytes) == 4);
    CHECK(in.read(bytes, sizeof bytes) == 0);
  }
  Pipe closed;
  closed.read.reset();
  signal(SIGPIPE, SIG_IGN);
  const InheritedFd out(closed.write.get(), Direction::kWrite);
  CHECK(out.write("x", 1) == -EPIPE);
}

TEST_CASE("inherited descriptor: files, sockets, terminals") {
  char path[] = "/tmp/tsvmm-fd-test-XXXXXX";
  const Fd file(mkostemp(path, O_CLOEXEC));
  unlink(path);
  const InheritedFd out(file.get(), Direction::kWrite);
  CHECK(out.alwaysReady());
  CHECK(out.write("abc", 3) == 3);
  CHECK(lseek(file.get(), 0, SEEK_CUR) == 3);  // the shared position moves, as whoever appends next expects

  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  Fd left(pair[0]), right(pair[1]);
  {
    const InheritedFd socket(left.get(), Direction::kRead), back(left.get(), Direction::kWrite);
    char byte;
    CHECK(socket.read(&byte, 1) == -EAGAIN);
    REQUIRE(write(right.get(), "y", 1) == 1);
    CHECK(socket.read(&byte, 1) == 1);
    CHECK(blocking(left.get()));
    right.reset();
    CHECK(back.write("z", 1) == -EPIPE);
    CHECK(socket.read(&byte, 1) == 0);
  }

  const Fd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(master);
  REQUIRE(grantpt(master.get()) == 0);
  REQUIRE(unlockpt(master.get()) == 0);
  const Fd terminal(open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(terminal);
  const InheritedFd keys(terminal.get(), Direction::kRead), screen(terminal.get(), Direction::kWrite);
  CHECK(keys.isTerminal());
  char line[8];
  CHECK(keys.read(line, sizeof line) == -EAGAIN);
  CHECK(blocking(terminal.get()));
  REQUIRE(write(master.get(), "hi\n", 3) == 3);
  CHECK(keys.read(line, sizeof line) == 3);
  CHECK(screen.write("out", 3) == 3);
  // The master is not opened a second time: that would be another terminal.
  const InheritedFd outside(master.get(), Direction::kRead);
  char echo[16];
  CHECK(outside.read(echo, sizeof echo) > 0);
}

TEST_CASE("inherited descriptor: what is not open, or not that way") {
  Pipe pipe;
  CHECK_THROWS_AS(InheritedFd(pipe.read.get(), Direction::kWrite), std::system_error);
  CHECK_THROWS_AS(InheritedFd(pipe.write.get(), Direction::kRead), std::system_error);
  CHECK_THROWS_AS(InheritedFd(987, Direction::kRead), std::system_error);
  CHECK_THROWS_AS(InheritedFd(-1, Direction::kRead), std::system_error);
  const Fd path(open("/tmp", O_PATH | O_CLOEXEC));
  CHECK_THROWS_AS(InheritedFd(path.get(), Direction::kRead), std::system_error);
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK(InheritedFd(null.get(), Direction::kWrite).write("x", 1) == 1);
}

TEST_CASE("streams: waiting for a pipe, again and again; cancelling") {
  Pipe pipe;
  EventLoop loop;
  loop.start();
  FdSource source(pipe.read.get());
  for (int round = 0; round < 3; round++) {
    std::promise<void> ready;
    loop.call([&] { source.awaitReadable(loop, [&] { ready.set_value(); }); });
    REQUIRE(write(pipe.write.get(), "x", 1) == 1);
    ready.get_future().wait();
    char byte;
    const iovec part{&byte, 1};
    loop.call([&] { CHECK(source.readv(&part, 1) == 1); });
  }
  loop.call([&] {
    source.awaitReadable(loop, [] { FAIL("cancelled"); });
    source.cancel();
  });
  REQUIRE(write(pipe.write.get(), "x", 1) == 1);
  loop.call([] {});
  // A hang-up is told once to who waits, not for ever.
  pipe.write.reset();
  std::promise<void> end;
  loop.call([&] { source.awaitReadable(loop, [&] { end.set_value(); }); });
  end.get_future().wait();
  loop.call([&] { source.cancel(); });
}

TEST_CASE("streams: a file is always ready, and a cancelled wait is silent") {
  char path[] = "/tmp/tsvmm-fd-test-XXXXXX";
  const Fd file(mkostemp(path, O_CLOEXEC));
  unlink(path);
  EventLoop loop;
  loop.start();
  FdSink sink(file.get());
  std::promise<void> ready;
  loop.call([&] { sink.awaitWritable(loop, [&] { ready.set_value(); }); });
  ready.get_future().wait();
  loop.call([&] {
    sink.awaitWritable(loop, [] { FAIL("cancelled"); });
    sink.cancel();
  });
  loop.call([] {});
}

TEST_CASE("streams: pushed input is bounded and tells of room") {
  EventLoop loop;
  loop.start();
  std::atomic<int> told{0};
  PushSource source(4, [&] { told++; });
  CHECK(source.push("abcdef", 6) == 4);
  char bytes[8];
  const iovec parts[2] = {{bytes, 1}, {bytes + 1, 7}};
  CHECK(source.readv(parts, 2) == 4);
  CHECK(std::string(bytes, 4) == "abcd");
  CHECK(told == 1);
  CHECK(source.readv(parts, 2) == -EAGAIN);
  // Pushed before, while and after somebody waits.
  std::promise<void> first, second;
  CHECK(source.push("x", 1) == 1);
  loop.call([&] { source.awaitReadable(loop, [&] { first.set_value(); }); });
  first.get_future().wait();
  CHECK(source.readv(parts, 2) == 1);
  loop.call([&] { source.awaitReadable(loop, [&] { second.set_value(); }); });
  source.end();
  second.get_future().wait();
  CHECK(source.readv(parts, 2) == 0);
  CHECK(source.push("x", 1) == 0);
  CHECK(told == 1);
}
