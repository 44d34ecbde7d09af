#include <doctest/doctest.h>

#include "support/vsock_guest.h"

using namespace tsvmm;
using namespace tsvmm::test;
using namespace std::chrono_literals;

namespace {

constexpr uint32_t kGuestPort = 1024;
constexpr uint32_t kHostPort = 5000;

void pause(VsockGuest& guest) {
  bool paused = false;
  guest.run([&] { guest.device->pause([&] { paused = true; }); });
  CHECK(paused);
}

/// As the transport does it.
void resume(VsockGuest& guest) {
  guest.run([&] {
    guest.device->resume();
    for (const uint16_t queue : {Vsock::kReceiveQueue, Vsock::kTransmitQueue, Vsock::kEventQueue}) {
      guest.device->notify(queue);
    }
  });
}

}  // namespace

TEST_CASE("vsock: paused, it touches nothing of the guest; resumed, every connection goes on") {
  VsockGuest guest;
  guest.giveBuffers(16);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);
  writeAll(socket.get(), "before");
  CHECK(guest.receive().payload == "before");
  pause(guest);
  guest.run([&] { CHECK(guest.host.queue(Vsock::kReceiveQueue).inFlight() == 0); });
  writeAll(socket.get(), "meanwhile");
  guest.run([&] {
    guest.queuePacket(vs::kReadWrite, kGuestPort, kHostPort, "from the guest");
    // A notification that was under way.
    guest.device->notify(Vsock::kTransmitQueue);
    guest.device->notify(Vsock::kReceiveQueue);
  });
  // Not what was submitted meanwhile, either.
  const Fd other = guest.bindSocket(kHostPort + 1);
  CHECK(guest.quiet());
  guest.run([&] { CHECK_FALSE(guest.tx->hasUsed()); });
  resume(guest);
  CHECK(guest.receive().payload == "meanwhile");
  CHECK(readAll(socket.get(), 14) == "from the guest");
  guest.run([&] { CHECK(guest.tx->takeUsed()); });
  guest.open(kGuestPort, kHostPort + 1);
}

TEST_CASE("vsock: a host that connects while the guest is paused waits, without losing patience") {
  VsockGuest guest({.connectTimeout = 300ms});
  guest.giveBuffers(8);
  pause(guest);
  auto pair = VsockGuest::socketPair();
  std::optional<int> connected;
  guest.run([&] {
    guest.device->connect(
        80, std::make_shared<vs::SocketEndpoint>(std::move(pair.second)),
        [&](int error, uint32_t) { connected = error; }, nullptr);
  });
  // Longer than its patience, by the loop's own clock.
  bool late = false;
  guest.run([&] { guest.host.loop().after(500ms, [&] { late = true; }); });
  CHECK(guest.host.waitUntil([&] { return late; }));
  CHECK_FALSE(connected);
  resume(guest);
  const Packet request = guest.receive();
  CHECK(request.header.operation == vs::kRequest);
  guest.send(vs::kResponse, 80, request.header.sourcePort);
  CHECK(guest.host.waitUntil([&] { return connected == 0; }));
}

TEST_CASE("vsock: after a restore the guest is told, old connections are refused, new ones work") {
  VsockGuest guest;
  guest.giveBuffers(16);
  const uint64_t event = guest.ram.alloc(4);
  const uint32_t filled = 0xffff'ffff;
  guest.ram.write(event, &filled, sizeof filled);
  guest.run([&] { guest.event->add({{event, 4, true}}); });
  std::optional<vs::Ended> ended;
  const Fd old = guest.bindSocket(kHostPort, &ended);
  guest.open(kGuestPort, kHostPort);
  writeAll(old.get(), "some");
  CHECK(guest.receive().payload == "some");
  guest.move();
  CHECK(ended->reset);
  CHECK(atEnd(old.get()));
  const Fd fresh = guest.bindSocket(kHostPort);
  CHECK(guest.quiet());
  guest.run([&] { CHECK_FALSE(guest.event->hasUsed()); });
  resume(guest);
  guest.run([&] { CHECK(guest.event->takeUsed()->length == 4); });
  CHECK(guest.ram.memory.read<uint32_t>(event) == vs::kTransportReset);
  // The guest's old connection, before it has read the event.
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "stale");
  CHECK(guest.receive().header.operation == vs::kReset);
  guest.open(kGuestPort, kHostPort);
  const std::string bytes = pattern(50'000);
  writeAll(fresh.get(), bytes);
  std::string got;
  while (got.size() < bytes.size()) {
    got += guest.receive().payload;
  }
  CHECK(got == bytes);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, bytes);
  CHECK(readAll(fresh.get(), bytes.size()) == bytes);
}

TEST_CASE("vsock: the host's ports are not used again after a restore") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const auto connect = [&] {
    auto pair = VsockGuest::socketPair();
    guest.run([&] {
      guest.device->connect(
          80, std::make_shared<vs::SocketEndpoint>(std::move(pair.second)), [](int, uint32_t) {}, nullptr);
    });
    return guest.receive().header.sourcePort;
  };
  const uint32_t first = connect();
  guest.move();
  resume(guest);
  CHECK(connect() == first + 1);
}

TEST_CASE("vsock: a state that is not of this device is refused, by the field") {
  VsockGuest guest;
  Value state;
  guest.run([&] {
    state = guest.device->save();
    guest.device->reset();
  });
  const auto refused = [&](const char* field, Value value, const char* message) {
    Value::Record record = *state.asRecord();
    record[field] = std::move(value);
    Vsock device({});
    guest.run([&] { CHECK_THROWS_WITH_AS(device.restore(guest.host, record), message, ValueError); });
  };
  refused("version", uint64_t{2}, "version: this build reads version 1, got 2");
  refused("cid", uint64_t{4}, "cid: expected 3, got 4");
  refused("nextHostPort", uint64_t{1} << 32, "nextHostPort: expected at most 4294967295, got 4294967296");
}
