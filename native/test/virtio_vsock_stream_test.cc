#include <doctest/doctest.h>
#include <sys/socket.h>

#include "support/vsock_guest.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {

constexpr uint32_t kGuestPort = 5000;
constexpr uint32_t kHostPort = 1026;

}  // namespace

TEST_CASE("vsock: a program that dies with unread bytes resets the guest's connection, and the log says so") {
  VsockGuest guest;
  guest.giveBuffers(8);
  std::optional<vs::Ended> ended;
  Fd socket = guest.bindSocket(kHostPort, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "never read");
  socket.reset();
  CHECK(receiveUntil(guest, vs::kReset).header.destinationPort == kGuestPort);
  CHECK(ended->reset);
  guest.run([&] {
    REQUIRE(guest.host.logs.size() == 1);
    CHECK(guest.host.logs[0] ==
          "port " + std::to_string(kHostPort) + ": the host's end is gone without having read everything");
  });
  CHECK(guest.device->connections() == 0);
  // One that has read everything ends like any other.
  socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "read");
  CHECK(readAll(socket.get(), 4) == "read");
  socket.reset();
  // First that nobody reads, then that nobody writes either.
  CHECK(receiveUntil(guest, vs::kShutdown).header.flags == vs::kNoReceive);
  CHECK(receiveUntil(guest, vs::kShutdown).header.flags == vs::kNoBoth);
}

TEST_CASE("vsock: a stream's two ends hear of each other's end and each other's cut") {
  VsockGuest guest;
  guest.giveBuffers(8);
  std::optional<Fd> kept;
  Fd stream;
  const auto open = [&] {
    kept.reset();
    auto pair = VsockGuest::socketPair();
    stream = std::move(pair.first);
    guest.run([&] {
      guest.device->bind(kHostPort,
                         std::make_shared<vs::SocketEndpoint>(
                             std::move(pair.second),
                             vs::SocketEndpoint::Options{.closingResets = true,
                                                         .onAbort = [&](Fd fd) { kept = std::move(fd); }}),
                         nullptr);
    });
    guest.open(kGuestPort, kHostPort);
  };
  // Closed by the host without an end: the guest gets what was written, and a reset.
  open();
  writeAll(stream.get(), "last words");
  stream.reset();
  std::string words;
  Packet packet = guest.receive();
  for (; packet.header.operation != vs::kReset; packet = guest.receive()) {
    words += packet.payload;
  }
  CHECK(words == "last words");
  // Reset by the guest: told while the stream is still open.
  open();
  guest.send(vs::kReset, kGuestPort, kHostPort);
  guest.run([&] { CHECK(kept.has_value()); });
  pollfd waiting{stream.get(), POLLIN, 0};
  CHECK(::poll(&waiting, 1, 0) == 0);
  kept.reset();
  CHECK(atEnd(stream.get()));
  // Half-closed by the host and closed by the guest: an ordinary end.
  open();
  ::shutdown(stream.get(), SHUT_WR);
  CHECK(receiveUntil(guest, vs::kShutdown).header.flags == vs::kNoSend);
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoBoth);
  CHECK(receiveUntil(guest, vs::kReset).header.operation == vs::kReset);
  CHECK(atEnd(stream.get()));
  guest.run([&] { CHECK_FALSE(kept.has_value()); });
  // Half-closed by the guest and closed by the host: as well.
  open();
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
  CHECK(atEnd(stream.get()));
  stream.reset();
  CHECK(receiveUntil(guest, vs::kShutdown).header.flags == vs::kNoBoth);
}

TEST_CASE("vsock: a peer that passes descriptors along holds nothing back") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  const auto pass = [&](std::string bytes) {
    iovec part{bytes.data(), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = socket.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK(sendmsg(socket.get(), &message, 0) == static_cast<ssize_t>(bytes.size()));
  };
  // While the device does not look, so that all of it is there at once.
  guest.run([&] {
    pass("one");
    pass("two");
    writeAll(socket.get(), "three");
  });
  std::string got;
  while (got.size() < 11) {
    got += guest.receive().payload;
  }
  CHECK(got == "onetwothree");
}
