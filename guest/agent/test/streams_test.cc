#include "streams.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <thread>

#include "test/support/read_all.h"

using namespace tsvmm;
using tsvmm::test::readAll;
using namespace tsvmm::agent;

namespace {

struct Pair {
  Fd near;
  Fd far;
};

Pair makePipePair() {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

Pair makeSocketPair() {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

bool writeAll(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    const ssize_t written =
        count < 0 && errno == ENOTSOCK ? write(fd, text.data() + done, text.size() - done) : count;
    if (written < 0) {
      return false;
    }
    done += static_cast<std::size_t>(written);
  }
  return true;
}

/// Every byte value, in no pattern that a lost or doubled block would keep.
std::string pattern(std::size_t size) {
  std::string bytes(size, '\0');
  unsigned state = 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

}  // namespace

TEST_CASE("a relay moves megabytes unchanged from a pipe to a socket, and then its end") {
  Loop loop;
  Pair pipe = makePipePair();
  Pair socket = makeSocketPair();
  const std::string sent = pattern(20u << 20);
  std::string received;
  std::thread writer([&] {
    writeAll(pipe.far.get(), sent);
    pipe.far.reset();
  });
  std::thread reader([&] { received = readAll(socket.far.get()); });
  Relay relay(loop, {std::move(pipe.near), EndKind::kPipe}, {std::move(socket.near), EndKind::kSocket},
              [&] { loop.stop(); });
  loop.run();
  writer.join();
  reader.join();
  CHECK(received.size() == sent.size());
  CHECK((received == sent));
}

TEST_CASE("a half-close of the socket is the pipe's end of file") {
  Loop loop;
  Pair socket = makeSocketPair();
  Pair pipe = makePipePair();
  REQUIRE(writeAll(socket.far.get(), "last words"));
  shutdown(socket.far.get(), SHUT_WR);
  Relay relay(loop, {std::move(socket.near), EndKind::kSocket}, {std::move(pipe.far), EndKind::kPipe},
              [&] { loop.stop(); });
  loop.run();
  CHECK(readAll(pipe.near.get()) == "last words");
}

TEST_CASE("a sink that nobody reads stops the source; what was sent arrives when somebody does") {
  Loop loop;
  Pair source = makeSocketPair();
  Pair sink = makePipePair();
  fcntl(source.far.get(), F_SETFL, O_NONBLOCK);
  const std::string sent = pattern(16u << 20);
  std::size_t taken = 0;
  std::string received;
  std::thread reader;
  int turns = 0;
  // Offers bytes between the loop's rounds; after 200 of them only the buffers on the way can have taken any.
  std::function<void()> offer = [&] {
    const ssize_t count = send(source.far.get(), sent.data() + taken, sent.size() - taken, MSG_NOSIGNAL);
    taken += count > 0 ? static_cast<std::size_t>(count) : 0;
    if (++turns == 200) {
      CHECK(taken > 0);
      CHECK(taken < (4u << 20));
      reader = std::thread([&] { received = readAll(sink.near.get()); });
    }
    if (taken < sent.size()) {
      loop.post(offer);
    } else {
      source.far.reset();
    }
  };
  loop.post(offer);
  Relay relay(loop, {std::move(source.near), EndKind::kSocket}, {std::move(sink.far), EndKind::kPipe},
              [&] { loop.stop(); });
  loop.run();
  reader.join();
  CHECK((received == sent));
}

TEST_CASE("a sink that is closed closes the source, and its writer gets EPIPE") {
  signal(SIGPIPE, SIG_IGN);
  Loop loop;
  Pair pipe = makePipePair();
  Pair socket = makeSocketPair();
  Relay relay(loop, {std::move(pipe.near), EndKind::kPipe}, {std::move(socket.near), EndKind::kSocket},
              [&] { loop.stop(); });
  // Nothing is written before: the relay must see it by itself.
  socket.far.reset();
  loop.run();
  CHECK(write(pipe.far.get(), "x", 1) == -1);
  CHECK(errno == EPIPE);
}

TEST_CASE("a peer that half-closes its own direction still gets all output") {
  Loop loop;
  Pair pipe = makePipePair();
  Pair socket = makeSocketPair();
  shutdown(socket.far.get(), SHUT_WR);
  const std::string sent = pattern(1u << 20);
  std::string received;
  std::thread writer([&] {
    writeAll(pipe.far.get(), sent);
    pipe.far.reset();
  });
  std::thread reader([&] { received = readAll(socket.far.get()); });
  Relay relay(loop, {std::move(pipe.near), EndKind::kPipe}, {std::move(socket.near), EndKind::kSocket},
              [&] { loop.stop(); });
  loop.run();
  writer.join();
  reader.join();
  CHECK((received == sent));
}

TEST_CASE("a process that closes its input ends the relay") {
  signal(SIGPIPE, SIG_IGN);
  Loop loop;
  Pair socket = makeSocketPair();
  Pair pipe = makePipePair();
  Relay relay(loop, {std::move(socket.near), EndKind::kSocket}, {std::move(pipe.far), EndKind::kPipe},
              [&] { loop.stop(); });
  pipe.near.reset();
  loop.run();
  CHECK_FALSE(writeAll(socket.far.get(), "x"));
}

TEST_CASE("an aborted relay closes both ends") {
  signal(SIGPIPE, SIG_IGN);
  Loop loop;
  Pair pipe = makePipePair();
  Pair socket = makeSocketPair();
  Relay relay(loop, {std::move(pipe.near), EndKind::kPipe}, {std::move(socket.near), EndKind::kSocket},
              [&] { loop.stop(); });
  loop.post([&] { relay.abort(); });
  loop.run();
  CHECK(readAll(socket.far.get()) == "");
  CHECK(write(pipe.far.get(), "x", 1) == -1);
}

TEST_CASE("relay: drained of what is there, while others may still write") {
  Loop loop;
  Pair source = makePipePair();
  Pair sink = makeSocketPair();
  const std::string text = pattern(50000);
  REQUIRE(writeAll(source.far.get(), text));
  Relay relay(loop, {std::move(source.near), EndKind::kPipe}, {std::move(sink.near), EndKind::kSocket},
              [&] { loop.stop(); });
  relay.drain();
  // More than was there at the end: nobody's any more.
  [[maybe_unused]] const ssize_t late = write(source.far.get(), "late", 4);
  loop.run();
  CHECK(readAll(sink.far.get()) == text);
}

TEST_CASE("relay: drained of nothing") {
  Loop loop;
  Pair source = makePipePair();
  Pair sink = makeSocketPair();
  Relay relay(loop, {std::move(source.near), EndKind::kPipe}, {std::move(sink.near), EndKind::kSocket},
              [&] { loop.stop(); });
  relay.drain();
  loop.run();
  CHECK(readAll(sink.far.get()).empty());
}
