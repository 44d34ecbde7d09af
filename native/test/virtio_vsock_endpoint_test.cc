#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <system_error>
#include <thread>

#include "support/vsock_guest.h"
#include "virtio/vsock/fd_endpoint.h"
#include "virtio/vsock/host_socket.h"
#include "virtio/vsock/line_endpoint.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {

constexpr uint32_t kGuestPort = 5000;
constexpr uint32_t kHostPort = 1026;

std::pair<Fd, Fd> makePipe() {
  int fds[2];
  REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
  return {Fd(fds[0]), Fd(fds[1])};
}

bool isNonBlocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }
bool isOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

/// A folder that goes with the test.
struct Folder {
  Folder() {
    char name[] = "/tmp/tsvmm-vsock-XXXXXX";
    path = mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const char* name) const { return path + "/" + name; }
  std::string path;
};

Fd listenAt(const std::string& path, int backlog = 16) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(socket.get(), backlog) == 0);
  return socket;
}

Fd connectTo(const std::string& path) {
  Fd socket;
  REQUIRE(vs::connectUnix(path, socket) == 0);
  fcntl(socket.get(), F_SETFL, 0);
  return socket;
}

/// Closed by the other side, with or without reading all that was sent.
bool hungUp(int fd) {
  pollfd waiting{fd, POLLIN, 0};
  char byte;
  return ::poll(&waiting, 1, 10'000) == 1 && ::read(fd, &byte, 1) <= 0;
}

void bindFds(VsockGuest& guest, const vs::FdEndpoint::Options& options,
             std::optional<vs::Ended>* ended = nullptr, uint32_t port = kHostPort) {
  const auto endpoint = std::make_shared<vs::FdEndpoint>(options);
  guest.run([&] {
    guest.device->bind(port, endpoint, [ended](const vs::Ended& end) {
      if (ended != nullptr) {
        *ended = end;
      }
    });
  });
}

}  // namespace

TEST_CASE("vsock: an output pipe gets every byte, slowly read, and stays blocking") {
  VsockGuest guest;
  guest.giveBuffers(16);
  auto pipe = makePipe();
  std::optional<vs::Ended> ended;
  bindFds(guest, {.write = pipe.second.get()}, &ended);
  guest.open(kGuestPort, kHostPort);
  CHECK_FALSE(isNonBlocking(pipe.second.get()));
  const std::string bytes = pattern(300'000);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, bytes.substr(0, 200'000));
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoBoth);
  // The guest gives up waiting: what it sent is delivered all the same.
  guest.send(vs::kReset, kGuestPort, kHostPort);
  CHECK(guest.device->connections() == 1);
  guest.run([&] { CHECK_FALSE(ended.has_value()); });
  CHECK(readAll(pipe.first.get(), 200'000) == bytes.substr(0, 200'000));
  CHECK(guest.host.waitUntil([&] { return ended.has_value(); }));
  CHECK(ended->lost == 0);
  CHECK_FALSE(ended->reset);
  CHECK(guest.device->connections() == 0);
  // The number we were given is the caller's still.
  CHECK(isOpen(pipe.second.get()));
  pipe.second.reset();
  CHECK(atEnd(pipe.first.get()));
}

TEST_CASE("vsock: descriptors handed over are closed when the guest half-closes") {
  VsockGuest guest;
  guest.giveBuffers(16);
  auto pipe = makePipe();
  std::optional<vs::Ended> ended;
  bindFds(guest, {.write = pipe.second.release(), .closeFds = true}, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "bytes");
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
  CHECK(readAll(pipe.first.get(), 100) == "bytes");
  // Nothing can follow in either direction: the guest hears so.
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kShutdown);
  CHECK(packet.header.flags == vs::kNoBoth);
  guest.run([&] { CHECK(ended.has_value()); });
}

TEST_CASE("vsock: a closed reader shuts the guest's direction down and counts what was lost") {
  VsockGuest guest;
  guest.giveBuffers(16);
  for (const bool before : {true, false}) {
    auto pipe = makePipe();
    std::optional<vs::Ended> ended;
    bindFds(guest, {.write = pipe.second.get()}, &ended);
    if (before) {
      pipe.first.reset();
    }
    guest.open(kGuestPort, kHostPort);
    if (!before) {
      guest.send(vs::kReadWrite, kGuestPort, kHostPort, pattern(200'000));
      pipe.first.reset();
    }
    Packet packet = guest.receive();
    while (packet.header.operation == vs::kCreditUpdate) {
      packet = guest.receive();
    }
    const Header header = packet.header;
    CHECK(header.operation == vs::kShutdown);
    CHECK((header.flags & vs::kNoReceive) != 0);
    // What is under way meanwhile is no offence.
    guest.send(vs::kReadWrite, kGuestPort, kHostPort, "late");
    guest.send(vs::kReset, kGuestPort, kHostPort);
    CHECK(guest.host.waitUntil([&] { return ended.has_value(); }));
    CHECK(ended->lost >= (before ? 0 : 100'000));
    CHECK(guest.device->connections() == 0);
  }
}

TEST_CASE("vsock: an input pipe reaches the guest to its end, and stays blocking") {
  VsockGuest guest;
  guest.giveBuffers(8);
  auto pipe = makePipe();
  std::optional<vs::Ended> ended;
  bindFds(guest, {.read = pipe.first.get()}, &ended);
  guest.open(kGuestPort, kHostPort);
  writeAll(pipe.second.get(), "one");
  CHECK(guest.receive().payload == "one");
  CHECK_FALSE(isNonBlocking(pipe.first.get()));
  writeAll(pipe.second.get(), "two");
  pipe.second.reset();
  CHECK(guest.receive().payload == "two");
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kShutdown);
  CHECK((packet.header.flags & vs::kNoSend) != 0);
  CHECK(guest.host.waitUntil([&] { return ended.has_value(); }));
}

TEST_CASE("vsock: a guest that writes to an input is told that nobody reads") {
  VsockGuest guest;
  guest.giveBuffers(8);
  auto pipe = makePipe();
  bindFds(guest, {.read = pipe.first.get()});
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "to nobody");
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kShutdown);
  CHECK(packet.header.flags == vs::kNoReceive);
  writeAll(pipe.second.get(), "still");
  CHECK(guest.receive().payload == "still");
}

TEST_CASE("vsock: regular files keep the shared offset, and /dev/null is empty and takes all") {
  VsockGuest guest;
  guest.giveBuffers(16);
  const Folder folder;
  Fd file(::open((folder / "out").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  writeAll(file.get(), "before ");
  std::optional<vs::Ended> ended;
  bindFds(guest, {.write = file.get()}, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "between ");
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoBoth);
  CHECK(guest.receive().header.operation == vs::kReset);
  CHECK(ended.has_value());
  writeAll(file.get(), "after");
  CHECK(lseek(file.get(), 0, SEEK_SET) == 0);
  CHECK(readAll(file.get(), 100) == "before between after");

  lseek(file.get(), 7, SEEK_SET);
  bindFds(guest, {.read = file.get()});
  guest.open(kGuestPort, kHostPort);
  CHECK(guest.receive().payload == "between after");
  CHECK(guest.receive().header.operation == vs::kShutdown);
  guest.send(vs::kReset, kGuestPort, kHostPort);

  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  bindFds(guest, {.read = null.get(), .write = null.get()});
  guest.open(kGuestPort, kHostPort);
  CHECK(guest.receive().header.operation == vs::kShutdown);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "gone");
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoBoth);
  CHECK(guest.receive().header.operation == vs::kReset);

  const Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ended.reset();
  bindFds(guest, {.write = full.get()}, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "no room");
  CHECK(guest.receive().header.operation == vs::kShutdown);
  CHECK(guest.host.waitUntil([&] { return ended.has_value(); }));
  CHECK(ended->lost == 7);
}

TEST_CASE("vsock: an endless input shares the way with others") {
  VsockGuest guest;
  guest.giveBuffers(16);
  const Fd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  bindFds(guest, {.read = zero.get()});
  guest.bufferSize = 0x7fff'ffff;
  guest.open(kGuestPort, kHostPort);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.send(vs::kRequest, kGuestPort + 1, kHostPort);
  writeAll(socket.get(), "me too");
  bool found = false;
  for (int i = 0; i < 2000 && !found; i++) {
    found = guest.receive().payload == "me too";
  }
  CHECK(found);
}

TEST_CASE("vsock: a terminal in both directions, and its hang-up") {
  VsockGuest guest;
  guest.giveBuffers(16);
  Fd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(grantpt(master.get()) == 0);
  REQUIRE(unlockpt(master.get()) == 0);
  const Fd terminal(::open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  std::optional<vs::Ended> ended;
  bindFds(guest, {.read = terminal.get(), .write = terminal.get()}, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "prompt> ");
  CHECK(readAll(master.get(), 8) == "prompt> ");
  writeAll(master.get(), "ls\n");
  CHECK(guest.receive().payload == "ls\n");
  CHECK_FALSE(isNonBlocking(terminal.get()));
  master.reset();
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kShutdown);
  CHECK(guest.host.waitUntil([&] { return ended.has_value(); }));
}

TEST_CASE("vsock: a shared socket stays blocking; one of our own is half-closed") {
  VsockGuest guest;
  guest.giveBuffers(16);
  for (const bool ours : {false, true}) {
    auto pair = VsockGuest::socketPair();
    const int fd = ours ? pair.second.release() : pair.second.get();
    bindFds(guest, {.read = fd, .write = fd, .closeFds = ours});
    guest.open(kGuestPort, kHostPort);
    CHECK_FALSE(isNonBlocking(fd));
    writeAll(pair.first.get(), "in");
    CHECK(guest.receive().payload == "in");
    guest.send(vs::kReadWrite, kGuestPort, kHostPort, "out");
    guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
    if (ours) {
      CHECK(readAll(pair.first.get(), 100) == "out");
    } else {
      CHECK(readAll(pair.first.get(), 3) == "out");
    }
    writeAll(pair.first.get(), "more");
    CHECK(guest.receive().payload == "more");
    pair.first.reset();
    CHECK(guest.receive().header.operation == vs::kShutdown);
    guest.send(vs::kReset, kGuestPort, kHostPort);
  }
}

TEST_CASE("vsock: a socket that is given for one direction is closed, and not shut down for who shares it") {
  VsockGuest guest;
  guest.giveBuffers(16);
  auto pair = VsockGuest::socketPair();
  const Fd shared(fcntl(pair.second.get(), F_DUPFD_CLOEXEC, 0));
  bindFds(guest, {.write = pair.second.release(), .closeFds = true});
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "first");
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
  CHECK(guest.receive().header.operation == vs::kShutdown);
  CHECK(readAll(pair.first.get(), 5) == "first");
  writeAll(shared.get(), "second");
  CHECK(readAll(pair.first.get(), 6) == "second");
}

TEST_CASE("vsock: descriptors of the wrong kind are refused, and nothing is taken") {
  auto pipe = makePipe();
  CHECK_THROWS_AS(vs::FdEndpoint({.read = pipe.second.get()}), std::system_error);
  CHECK_THROWS_AS(vs::FdEndpoint({.write = pipe.first.get()}), std::system_error);
  CHECK_THROWS_AS(vs::FdEndpoint({.read = pipe.first.get(), .write = 99'999, .closeFds = true}),
                  std::system_error);
  CHECK(isOpen(pipe.first.get()));
}

TEST_CASE("vsock: guest connections go to Unix sockets, by port and by prefix") {
  VsockGuest guest({.backlogTimeout = std::chrono::milliseconds(5'000)});
  guest.giveBuffers(16);
  const Folder folder;
  const Fd one = listenAt(folder / "one");
  const Fd other = listenAt(folder / "all_77");
  guest.run([&] {
    guest.device->listenUnix(70, folder / "one");
    guest.device->listenAll(folder / "all");
  });
  guest.open(kGuestPort, 70);
  Fd accepted(accept(one.get(), nullptr, nullptr));
  guest.send(vs::kReadWrite, kGuestPort, 70, "to one");
  CHECK(readAll(accepted.get(), 6) == "to one");
  guest.open(kGuestPort, 77);
  const Fd second(accept(other.get(), nullptr, nullptr));
  writeAll(second.get(), "from the other");
  CHECK(guest.receive().payload == "from the other");
  // Nobody there, and a peer that vanishes.
  guest.send(vs::kRequest, kGuestPort, 78);
  CHECK(guest.receive().header.operation == vs::kReset);
  accepted.reset();
  for (uint32_t flags = 0; flags != vs::kNoBoth;) {
    const Header header = guest.receive().header;
    CHECK(header.operation == vs::kShutdown);
    flags |= header.flags;
  }
  guest.run([&] { guest.device->unlisten(70); });
  guest.send(vs::kRequest, kGuestPort + 1, 70);
  CHECK(guest.receive().header.operation == vs::kReset);

  // A full backlog is waited for.
  const Fd busy = listenAt(folder / "all_79", 0);
  const Fd filler = connectTo(folder / "all_79");
  guest.send(vs::kRequest, kGuestPort, 79);
  CHECK(guest.quiet());
  Fd first(accept(busy.get(), nullptr, nullptr));
  CHECK(guest.receive().header.operation == vs::kResponse);
  const Fd third(accept(busy.get(), nullptr, nullptr));
  writeAll(third.get(), "at last");
  CHECK(guest.receive().payload == "at last");
}

TEST_CASE("vsock: host programs reach the guest through the host socket") {
  VsockGuest guest;
  guest.giveBuffers(16);
  const Folder folder;
  const std::string path = folder / "host.sock";
  const auto socket = std::make_shared<vs::HostSocket>(
      vs::HostSocket::Options{.path = path, .lineTimeout = std::chrono::milliseconds(60)});
  guest.run([&] { socket->attach(guest.device); });

  // The line in pieces, and bytes behind it which are the guest's.
  const Fd client = connectTo(path);
  writeAll(client.get(), "CONN");
  writeAll(client.get(), "ECT 52\nfirst");
  const Packet request = guest.receive();
  CHECK(request.header.operation == vs::kRequest);
  CHECK(request.header.destinationPort == 52);
  const uint32_t hostPort = request.header.sourcePort;
  guest.send(vs::kResponse, 52, hostPort);
  const std::string ok = "OK " + std::to_string(hostPort) + "\n";
  CHECK(readAll(client.get(), ok.size()) == ok);
  CHECK(guest.receive().payload == "first");
  guest.send(vs::kReadWrite, 52, hostPort, "answer");
  CHECK(readAll(client.get(), 6) == "answer");

  // Refused by the guest.
  const Fd refused = connectTo(path);
  writeAll(refused.get(), "CONNECT 53\n");
  guest.send(vs::kReset, 53, guest.receive().header.sourcePort);
  CHECK(atEnd(refused.get()));

  for (const char* line :
       {"HELLO\n", "CONNECT\n", "CONNECT \n", "CONNECT 5x\n", "CONNECT -1\n", "CONNECT 4294967296\n",
        "CONNECT 00000000000000000000000000001", "CONNECT 52\r\n", "\n"}) {
    const Fd bad = connectTo(path);
    writeAll(bad.get(), line);
    CHECK_MESSAGE(hungUp(bad.get()), line);
  }
  // Who says nothing is dropped by the timer.
  const Fd silent = connectTo(path);
  CHECK(atEnd(silent.get()));

  // A second one at the same place is refused while this one lives; then the file goes.
  CHECK_THROWS_WITH_AS(vs::HostSocket({.path = path}), doctest::Contains("another process listens"),
                       std::system_error);
  guest.run([&] { socket->detach(); });
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("vsock: a stale host socket is replaced, a file is not") {
  const Folder folder;
  const std::string path = folder / "stale.sock";
  listenAt(path).reset();
  CHECK(std::filesystem::exists(path));
  {
    const vs::HostSocket socket({.path = path});
    CHECK(std::filesystem::exists(path));
  }
  CHECK_FALSE(std::filesystem::exists(path));
  Fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).reset();
  CHECK_THROWS_WITH_AS(vs::HostSocket({.path = path}), doctest::Contains("not a socket"), std::system_error);
  CHECK(std::filesystem::exists(path));
  CHECK_THROWS_AS(vs::HostSocket({.path = std::string(200, 'x')}), std::system_error);
}

TEST_CASE(
    "vsock: clients of the host socket wait until the guest's driver is there, and again after a reset") {
  VsockGuest guest({}, FakeHost::kDefaultFeatures, false);
  const Folder folder;
  const std::string path = folder / "host.sock";
  const auto socket = std::make_shared<vs::HostSocket>(vs::HostSocket::Options{.path = path});
  guest.device->submit([&] { socket->attach(guest.device); });
  const Fd early = connectTo(path);
  writeAll(early.get(), "CONNECT 1\n");
  guest.host.activate(*guest.device);
  guest.giveBuffers(4);
  CHECK(guest.receive().header.destinationPort == 1);
  guest.host.reset(*guest.device);
  CHECK(atEnd(early.get()));
  const Fd late = connectTo(path);
  writeAll(late.get(), "CONNECT 2\n");
  guest.restart();
  guest.giveBuffers(4);
  CHECK(guest.receive().header.destinationPort == 2);
  guest.run([&] { socket->detach(); });
}

TEST_CASE("vsock: retiring gives up everything that waits, with and without a driver") {
  for (const bool active : {false, true}) {
    VsockGuest guest({}, FakeHost::kDefaultFeatures, active);
    const Folder folder;
    const std::string path = folder / "host.sock";
    auto socket = std::make_shared<vs::HostSocket>(vs::HostSocket::Options{.path = path});
    guest.device->submit([&guest, socket] { socket->attach(guest.device); });
    const Fd bound = guest.bindSocket(kHostPort);
    guest.run([] {});
    socket.reset();
    CHECK(std::filesystem::exists(path));
    guest.device->retire();
    guest.run([] {});
    CHECK(atEnd(bound.get()));
    CHECK_FALSE(std::filesystem::exists(path));
  }
}
