#include <doctest/doctest.h>
#include <fcntl.h>

#include <thread>

#include "support/vsock_guest.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {
constexpr uint32_t kGuestPort = 5000;
constexpr uint32_t kHostPort = 1024;
}  // namespace

TEST_CASE("vsock: a guest's connection to a bound port carries bytes both ways") {
  for (const uint64_t features :
       {FakeHost::kDefaultFeatures, FakeHost::kDefaultFeatures | virtio::kFeatureEventIndex}) {
    VsockGuest guest({}, features);
    guest.giveBuffers(8);
    std::optional<vs::Ended> ended;
    const Fd socket = guest.bindSocket(kHostPort, &ended);

    const Packet response = guest.open(kGuestPort, kHostPort);
    CHECK(response.header.sourceCid == 2);
    CHECK(response.header.destinationCid == 3);
    CHECK(response.header.sourcePort == kHostPort);
    CHECK(response.header.destinationPort == kGuestPort);
    CHECK(response.header.type == 1);
    CHECK(response.header.bufferSize == 256 << 10);
    CHECK(response.header.forwardedCount == 0);

    guest.send(vs::kReadWrite, kGuestPort, kHostPort, "hello host");
    CHECK(readAll(socket.get(), 10) == "hello host");
    writeAll(socket.get(), "hello guest");
    const Packet packet = guest.receive();
    CHECK(packet.header.operation == vs::kReadWrite);
    CHECK(packet.payload == "hello guest");
    CHECK(packet.header.forwardedCount == 10);
    CHECK(guest.device->connections() == 1);
    CHECK(guest.device->metrics.bytesWritten == 10);
    CHECK(guest.device->metrics.bytesRead == 11);

    // The guest closes: everything it sent has gone, so the answer is a reset, and the host sees the end.
    guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoBoth);
    CHECK(guest.receive().header.operation == vs::kReset);
    CHECK(atEnd(socket.get()));
    CHECK(guest.device->connections() == 0);
    guest.run([&] {
      REQUIRE(ended.has_value());
      CHECK(ended->lost == 0);
      CHECK_FALSE(ended->reset);
    });
  }
}

TEST_CASE("vsock: a bind serves one connection, the next is refused") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kRequest, kGuestPort + 1, kHostPort);
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kReset);
  CHECK(packet.header.destinationPort == kGuestPort + 1);
}

TEST_CASE("vsock: a bind that was taken back is gone, and its endpoint untouched") {
  VsockGuest guest;
  guest.giveBuffers(8);
  auto pair = VsockGuest::socketPair();
  const auto endpoint = std::make_shared<vs::SocketEndpoint>(std::move(pair.second));
  guest.run([&] {
    guest.device->bind(kHostPort, endpoint, nullptr);
    CHECK(guest.device->unbind(kHostPort, endpoint.get()));
    CHECK_FALSE(guest.device->unbind(kHostPort, endpoint.get()));
  });
  guest.send(vs::kRequest, kGuestPort, kHostPort);
  CHECK(guest.receive().header.operation == vs::kReset);
}

TEST_CASE("vsock: half-close of the guest's side is an end-of-file for the host, which may still write") {
  VsockGuest guest;
  guest.giveBuffers(8);
  std::optional<vs::Ended> ended;
  Fd socket = guest.bindSocket(kHostPort, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "question");
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
  CHECK(readAll(socket.get(), 100) == "question");
  writeAll(socket.get(), "answer");
  CHECK(guest.receive().payload == "answer");
  socket.reset();
  // Both sides have ended theirs.
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kShutdown);
  CHECK((packet.header.flags & vs::kNoSend) != 0);
  CHECK(guest.host.waitUntil([&] { return ended.has_value(); }));
  CHECK(ended->lost == 0);
  guest.send(vs::kReset, kGuestPort, kHostPort);
  CHECK(guest.device->connections() == 0);
}

TEST_CASE(
    "vsock: half-close of the host's side reaches the guest after all bytes, and the guest may still send") {
  VsockGuest guest;
  guest.giveBuffers(4);
  std::optional<vs::Ended> ended;
  const Fd socket = guest.bindSocket(kHostPort, &ended);
  guest.open(kGuestPort, kHostPort);
  const std::string bytes = pattern(100'000);
  std::thread writer([&] {
    writeAll(socket.get(), bytes);
    shutdown(socket.get(), SHUT_WR);
  });
  std::string got;
  while (true) {
    const Packet packet = guest.receive();
    if (packet.header.operation == vs::kShutdown) {
      CHECK(packet.header.flags == vs::kNoSend);
      break;
    }
    REQUIRE(packet.header.operation == vs::kReadWrite);
    got += packet.payload;
  }
  writer.join();
  CHECK(got == bytes);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "still here");
  CHECK(readAll(socket.get(), 10) == "still here");
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoBoth);
  CHECK(guest.receive().header.operation == vs::kReset);
  CHECK(atEnd(socket.get()));
}

TEST_CASE("vsock: the guest's credit is used up exactly, asked for once, and never exceeded") {
  VsockGuest guest;
  guest.giveBuffers(16);
  guest.bufferSize = 10'000;
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  const std::string bytes = pattern(50'000);
  std::thread writer([&] { writeAll(socket.get(), bytes); });
  std::string got;
  int asked = 0;
  while (got.size() < bytes.size()) {
    const Packet packet = guest.receive();
    if (packet.header.operation == vs::kCreditRequest) {
      asked++;
      CHECK(got.size() - guest.forwarded == 10'000);
      CHECK(guest.quiet());
      // Odd steps: what is left of a buffer is used to the byte.
      guest.forwarded += 3'333;
      guest.send(vs::kCreditUpdate, kGuestPort, kHostPort);
      continue;
    }
    REQUIRE(packet.header.operation == vs::kReadWrite);
    got += packet.payload;
    REQUIRE(got.size() - guest.forwarded <= 10'000);
  }
  writer.join();
  CHECK(got == bytes);
  CHECK(asked >= 12);
}

TEST_CASE("vsock: counts wrap around") {
  VsockGuest guest;
  guest.giveBuffers(32);
  const Fd socket = guest.bindSocket(kHostPort);
  // As if 4 GiB had gone each way already: the state is set, what follows is exact.
  guest.open(kGuestPort, kHostPort);
  vs::Connection connection(1, 2, 65536);
  connection.sent = 0xffff'fff0;
  Header header;
  header.bufferSize = 100;
  header.forwardedCount = 0xffff'ffe0;
  connection.guestForwarded = 0xffff'ff00;
  CHECK(connection.updateCredit(header));
  CHECK(connection.credit() == 84);
  connection.sent += 84;
  CHECK(connection.credit() == 0);
  header.forwardedCount = connection.sent;
  CHECK(connection.updateCredit(header));
  CHECK(connection.credit() == 100);
  header.forwardedCount = connection.sent + 1;
  CHECK_FALSE(connection.updateCredit(header));
  // An older count that arrives late changes nothing.
  header.forwardedCount = connection.sent - 50;
  CHECK(connection.updateCredit(header));
  CHECK(connection.credit() == 100);
  // A buffer made smaller while more is in flight.
  connection.sent += 60;
  header.forwardedCount = connection.sent - 60;
  header.bufferSize = 50;
  CHECK(connection.updateCredit(header));
  CHECK(connection.credit() == 0);
  header.bufferSize = UINT32_MAX;
  CHECK(connection.updateCredit(header));
  CHECK(connection.credit() == INT32_MAX - 60);
}

TEST_CASE("vsock: a host that does not read holds the guest back; no credit before the bytes have gone") {
  VsockGuest guest;
  guest.giveBuffers(16);
  Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  // A guest that sends what its credit allows, in packets of 32 KiB.
  const uint32_t window = 256 << 10;
  const std::string bytes = pattern(3 << 20);
  uint32_t sent = 0;
  uint32_t peerForwarded = 0;
  std::string got;
  const auto takeCredit = [&] {
    guest.run([&] {
      while (const auto packet = guest.poll()) {
        CHECK(packet->header.operation == vs::kCreditUpdate);
        CHECK(static_cast<int32_t>(packet->header.forwardedCount - peerForwarded) > 0);
        peerForwarded = packet->header.forwardedCount;
      }
    });
  };
  const auto sendAll = [&] {
    while (sent < bytes.size() && sent - peerForwarded < window) {
      const uint32_t length = std::min(
          {uint32_t{32768}, window - (sent - peerForwarded), static_cast<uint32_t>(bytes.size()) - sent});
      guest.send(vs::kReadWrite, kGuestPort, kHostPort, bytes.substr(sent, length));
      sent += length;
      takeCredit();
    }
  };
  sendAll();
  // Nothing is read: the socket's buffer and our window are full, and so it stays.
  CHECK(sent < bytes.size());
  CHECK(sent - peerForwarded == window);
  CHECK(guest.quiet());
  while (got.size() < bytes.size()) {
    got += readAll(socket.get(), std::min<size_t>(10'000, bytes.size() - got.size()));
    CHECK(peerForwarded <= got.size() + (512 << 10));
    takeCredit();
    sendAll();
  }
  CHECK(got == bytes);
  CHECK(sent == bytes.size());
}

TEST_CASE("vsock: a guest that gives no buffers holds the host back, and a notification resumes") {
  for (const bool indirect : {false, true}) {
    VsockGuest guest;
    guest.giveBuffers(1);
    Fd socket = guest.bindSocket(kHostPort);
    guest.open(kGuestPort, kHostPort);
    guest.run([&] {});
    const std::string bytes = pattern(40'000);
    std::thread writer([&] { writeAll(socket.get(), bytes); });
    std::string got;
    // One buffer at a time is kept, and a new one given each time.
    while (got.size() < bytes.size()) {
      const Packet packet = guest.receive(true);
      REQUIRE(packet.header.operation == vs::kReadWrite);
      got += packet.payload;
      CHECK(guest.quiet());
      guest.giveBuffers(1, 2000, indirect);
    }
    writer.join();
    CHECK(got == bytes);
  }
}

TEST_CASE("vsock: the host connects to the guest") {
  VsockGuest guest({}, FakeHost::kDefaultFeatures, false);
  auto pair = VsockGuest::socketPair();
  std::optional<int> result;
  uint32_t port = 0;
  std::optional<vs::Ended> ended;
  // Before there is a driver: kept until then.
  writeAll(pair.first.get(), "early");
  guest.run([&] {
    guest.device->connect(
        52, std::make_shared<vs::SocketEndpoint>(std::move(pair.second)),
        [&](int error, uint32_t hostPort) {
          result = error;
          port = hostPort;
        },
        [&](const vs::Ended& end) { ended = end; });
  });
  guest.host.activate(*guest.device);
  guest.giveBuffers(8);
  const Packet request = guest.receive();
  CHECK(request.header.operation == vs::kRequest);
  CHECK(request.header.destinationPort == 52);
  guest.run([&] { CHECK_FALSE(result.has_value()); });
  const uint32_t hostPort = request.header.sourcePort;
  guest.send(vs::kResponse, 52, hostPort);
  guest.run([&] {
    CHECK(result == 0);
    CHECK(port == hostPort);
  });
  CHECK(guest.receive().payload == "early");
  guest.send(vs::kReadWrite, 52, hostPort, "reply");
  CHECK(readAll(pair.first.get(), 5) == "reply");
  guest.send(vs::kReset, 52, hostPort);
  CHECK(atEnd(pair.first.get()));
  guest.run([&] {
    REQUIRE(ended.has_value());
    CHECK(ended->reset);
  });
}

TEST_CASE("vsock: a refused and an unanswered connect of the host fail") {
  VsockGuest guest({.connectTimeout = std::chrono::milliseconds(40)});
  guest.giveBuffers(8);
  const auto connect = [&](uint32_t port, std::optional<int>& result) {
    auto pair = VsockGuest::socketPair();
    guest.run([&] {
      guest.device->connect(
          port, std::make_shared<vs::SocketEndpoint>(std::move(pair.second)),
          [&](int error, uint32_t) { result = error; },
          [](const vs::Ended&) { FAIL("it never was a connection"); });
    });
    return std::move(pair.first);
  };
  std::optional<int> refused;
  const Fd first = connect(1, refused);
  guest.send(vs::kReset, 1, guest.receive().header.sourcePort);
  guest.run([&] { CHECK(refused == ECONNREFUSED); });
  CHECK(atEnd(first.get()));

  std::optional<int> late;
  const Fd second = connect(2, late);
  CHECK(guest.receive().header.operation == vs::kRequest);
  CHECK(guest.receive().header.operation == vs::kReset);
  guest.run([&] { CHECK(late == ETIMEDOUT); });
  CHECK(atEnd(second.get()));
}

TEST_CASE("vsock: a guest that never acknowledges the end is cut off") {
  VsockGuest guest({.linger = std::chrono::milliseconds(40)});
  guest.giveBuffers(8);
  std::optional<vs::Ended> ended;
  Fd socket = guest.bindSocket(kHostPort, &ended);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
  socket.reset();
  CHECK(guest.receive().header.operation == vs::kShutdown);
  CHECK(guest.receive().header.operation == vs::kReset);
  CHECK(guest.device->connections() == 0);
}

TEST_CASE("vsock: a reset of the device ends connections and keeps listeners") {
  VsockGuest guest;
  guest.giveBuffers(8);
  std::optional<vs::Ended> ended;
  const Fd first = guest.bindSocket(kHostPort, &ended);
  const Fd second = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  guest.host.reset(*guest.device);
  CHECK(atEnd(first.get()));
  CHECK(ended->reset);
  CHECK(guest.device->connections() == 0);
  guest.restart();
  guest.giveBuffers(8);
  guest.open(kGuestPort, kHostPort);
  writeAll(second.get(), "again");
  CHECK(guest.receive().payload == "again");
}

TEST_CASE("vsock: what is submitted before there is a driver runs on activation, in order") {
  VsockGuest guest({}, FakeHost::kDefaultFeatures, false);
  std::string order;
  bool inLoop = false;
  guest.device->submit([&] { order += "a"; });
  guest.device->submit([&] {
    order += "b";
    inLoop = guest.host.loop().inLoop();
  });
  CHECK(order.empty());
  guest.host.activate(*guest.device);
  CHECK(order == "ab");
  CHECK(inLoop);
  guest.device->submit([&] { order += "c"; });
  guest.run([] {});
  CHECK(order == "abc");
}

TEST_CASE(
    "vsock: a port that was bound before the guest asks for it is found, whatever the I/O thread does "
    "meanwhile") {
  VsockGuest guest;
  guest.giveBuffers(8);
  auto [ours, theirs] = VsockGuest::socketPair();
  const auto endpoint = std::make_shared<vs::SocketEndpoint>(std::move(theirs));
  // The I/O thread is busy from before the change until the guest's packet is there, and sees the packet
  // first.
  guest.run([&] {
    std::thread([&] {
      guest.device->changePorts([&] { guest.device->bind(kHostPort, endpoint, nullptr); });
    }).join();
    guest.queuePacket(vs::kRequest, kGuestPort, kHostPort);
    guest.device->notify(Vsock::kTransmitQueue);
  });
  CHECK(guest.receive().header.operation == vs::kResponse);
}

TEST_CASE("vsock: a transport reset ends all and is told once there is a buffer for it") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  guest.run([&] { guest.device->resetTransport(); });
  CHECK(atEnd(socket.get()));
  CHECK(guest.quiet());
  const uint64_t small = guest.ram.alloc(2);
  const uint64_t buffer = guest.ram.alloc(8);
  const uint32_t filled = 0xffff'ffff;
  guest.ram.write(buffer, &filled, sizeof filled);
  guest.run([&] {
    guest.event->add({{small, 2, true}});
    guest.event->add({{buffer, 8, true}});
    guest.device->notify(Vsock::kEventQueue);
    CHECK(guest.event->takeUsed()->length == 0);
    CHECK(guest.event->takeUsed()->length == 4);
  });
  CHECK(guest.ram.memory.read<uint32_t>(buffer) == 0u);
}

TEST_CASE("vsock: a credit request is answered") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "12345");
  guest.send(vs::kCreditRequest, kGuestPort, kHostPort);
  const Packet packet = guest.receive();
  CHECK(packet.header.operation == vs::kCreditUpdate);
  CHECK(packet.header.forwardedCount == 5);
}

TEST_CASE("vsock: many connections at once, interleaved, and the limit") {
  constexpr uint32_t kCount = 300;
  VsockGuest guest({.maxConnections = kCount});
  guest.giveBuffers(32);
  std::vector<Fd> sockets;
  for (uint32_t i = 0; i < kCount; i++) {
    sockets.push_back(guest.bindSocket(kHostPort));
    guest.open(kGuestPort + i, kHostPort);
  }
  const Fd more = guest.bindSocket(kHostPort);
  guest.send(vs::kRequest, kGuestPort + kCount, kHostPort);
  CHECK(guest.receive().header.operation == vs::kReset);
  CHECK(guest.device->connections() == kCount);
  std::thread writer([&] {
    for (int round = 0; round < 4; round++) {
      for (uint32_t i = 0; i < kCount; i++) {
        writeAll(sockets[i].get(), pattern(1000 + i, i + static_cast<uint32_t>(round) * 1000));
      }
    }
  });
  std::map<uint32_t, std::string> got;
  size_t total = 0;
  size_t expected = 0;
  for (uint32_t i = 0; i < kCount; i++) {
    expected += 4 * (1000 + i);
  }
  while (total < expected) {
    const Packet packet = guest.receive();
    REQUIRE(packet.header.operation == vs::kReadWrite);
    got[packet.header.destinationPort] += packet.payload;
    total += packet.payload.size();
  }
  writer.join();
  for (uint32_t i = 0; i < kCount; i++) {
    std::string wanted;
    for (uint32_t round = 0; round < 4; round++) {
      wanted += pattern(1000 + i, i + round * 1000);
    }
    CHECK(got[kGuestPort + i] == wanted);
  }
  for (uint32_t i = 0; i < kCount; i++) {
    guest.send(vs::kShutdown, kGuestPort + i, kHostPort, {}, vs::kNoBoth);
    CHECK(guest.receive().header.operation == vs::kReset);
  }
  CHECK(guest.device->connections() == 0);
}
