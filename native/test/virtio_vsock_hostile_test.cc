#include <doctest/doctest.h>

#include <numeric>
#include <random>
#include <thread>

#include "support/vsock_guest.h"
#include "virtio/vsock/line_endpoint.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {

constexpr uint32_t kGuestPort = 5000;
constexpr uint32_t kHostPort = 1024;

struct Channel {
  std::shared_ptr<vs::LineEndpoint> endpoint;
  std::vector<std::string> lines;
  bool open = false;
  std::optional<vs::Ended> ended;
};

std::shared_ptr<Channel> bindChannel(VsockGuest& guest, vs::LineEndpoint::Options options = {}) {
  auto channel = std::make_shared<Channel>();
  options.onLine = [raw = channel.get()](std::string line) { raw->lines.push_back(std::move(line)); };
  options.onOpen = [raw = channel.get()] { raw->open = true; };
  channel->endpoint = std::make_shared<vs::LineEndpoint>(std::move(options));
  guest.run([&] {
    guest.device->bind(kHostPort, channel->endpoint,
                       [channel](const vs::Ended& end) { channel->ended = end; });
  });
  return channel;
}

}  // namespace

TEST_CASE("vsock: a channel hands over lines and sends them") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const auto channel = bindChannel(guest);
  guest.run([&] { channel->endpoint->send("early\n"); });
  guest.open(kGuestPort, kHostPort);
  CHECK(guest.receive().payload == "early\n");
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "one\ntwo\n\nthr");
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "ee\n");
  guest.run([&] {
    CHECK(channel->open);
    CHECK(channel->lines == std::vector<std::string>{"one", "two", "", "three"});
    channel->endpoint->send("reply\n");
  });
  CHECK(guest.receive().payload == "reply\n");
  // Ended by the host: what was sent before goes out first.
  guest.run([&] {
    channel->endpoint->send("last\n");
    channel->endpoint->finish();
    channel->endpoint->send("too late\n");
  });
  std::string got;
  uint32_t flags = 0;
  while (flags != vs::kNoBoth) {
    const Packet packet = guest.receive();
    got += packet.payload;
    if (packet.header.operation == vs::kShutdown) {
      flags |= packet.header.flags;
    }
  }
  CHECK(got == "last\n");
  guest.run([&] { CHECK(channel->ended.has_value()); });
}

TEST_CASE("vsock: a channel's line over the limit ends it") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const auto channel = bindChannel(guest, {.maxLine = 10});
  guest.open(kGuestPort, kHostPort);
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "0123456789\n0123456789");
  guest.run([&] { CHECK_FALSE(channel->ended.has_value()); });
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "a\n");
  CHECK(guest.host.waitUntil([&] { return channel->ended.has_value(); }));
  CHECK(channel->endpoint->failure() != nullptr);
  CHECK(channel->lines == std::vector<std::string>{"0123456789"});
  CHECK(guest.receive().header.operation == vs::kShutdown);
}

TEST_CASE("vsock: a channel whose consumer falls behind holds the guest back") {
  VsockGuest guest;
  guest.giveBuffers(8);
  const auto channel = bindChannel(guest);
  guest.open(kGuestPort, kHostPort);
  // Empty lines cost the consumer more than their byte.
  uint32_t sent = 0;
  const std::string lines(1024, '\n');
  while (sent < (256u << 10)) {
    guest.send(vs::kReadWrite, kGuestPort, kHostPort, lines);
    sent += lines.size();
  }
  size_t handed = 0;
  guest.run([&] { handed = channel->lines.size(); });
  CHECK(handed < 40'000);
  // As they are consumed, the rest comes.
  size_t consumed = 0;
  while (consumed < sent) {
    REQUIRE(guest.host.waitUntil([&] { return channel->lines.size() > consumed; }));
    bool resume = false;
    guest.run([&] {
      for (; consumed < channel->lines.size(); consumed++) {
        resume |= channel->endpoint->consumed(0);
      }
      if (resume) {
        channel->endpoint->resume();
      }
    });
  }
  CHECK(consumed == sent);
}

TEST_CASE("vsock: a guest that does not read a channel ends it before it fills the host") {
  VsockGuest guest;
  guest.giveBuffers(8);
  guest.bufferSize = 100;
  const auto channel = bindChannel(guest, {.maxQueued = 10'000});
  guest.open(kGuestPort, kHostPort);
  guest.run([&] {
    for (int i = 0; i < 200; i++) {
      channel->endpoint->send(std::string(99, 'x') + "\n");
    }
    CHECK(channel->endpoint->failure() != nullptr);
  });
}

TEST_CASE("vsock: malformed packets are dropped or refused, and nothing else suffers") {
  VsockGuest guest;
  guest.giveBuffers(32);
  const Fd socket = guest.bindSocket(kHostPort);
  guest.open(kGuestPort, kHostPort);

  // Shorter than a header: not answered.
  guest.run([&] {
    const uint64_t address = guest.ram.alloc(64);
    guest.tx->add({{address, 43, false}});
    guest.tx->add({{address, 44, true}});
    guest.device->notify(Vsock::kTransmitQueue);
    CHECK(guest.tx->takeUsed()->length == 0);
    CHECK(guest.tx->takeUsed()->length == 0);
  });
  // From or to an address that is nobody's.
  guest.send(vs::kRequest, 1, kHostPort, {}, 0, {.sourceCid = 4});
  guest.send(vs::kRequest, 1, kHostPort, {}, 0, {.destinationCid = 1});
  guest.send(vs::kReadWrite, kGuestPort, kHostPort, "x", 0, {.sourceCid = 2});
  CHECK(guest.quiet());
  CHECK(guest.device->metrics.errors == 5);
  // Not a stream: refused in its own type.
  for (const uint16_t type : {0, 2, 0xffff}) {
    guest.send(vs::kRequest, 1, kHostPort, {}, 0, {.type = type});
    const Packet packet = guest.receive();
    CHECK(packet.header.operation == vs::kReset);
    CHECK(packet.header.type == type);
  }
  // For what is not there: refused; but a reset is never answered.
  for (const uint16_t operation :
       {vs::kResponse, vs::kShutdown, vs::kReadWrite, vs::kCreditUpdate, vs::kCreditRequest}) {
    guest.send(operation, 9, 9);
    CHECK(guest.receive().header.operation == vs::kReset);
  }
  guest.send(77, 9, 9);
  CHECK(guest.receive().header.operation == vs::kReset);
  guest.send(vs::kReset, 9, 9);
  CHECK(guest.quiet());
  // The connection has seen nothing of it.
  writeAll(socket.get(), "fine");
  CHECK(guest.receive().payload == "fine");
}

TEST_CASE("vsock: a connection whose rules the guest breaks is reset") {
  const std::vector<std::pair<const char*, std::function<void(VsockGuest&)>>> offences = {
      {"length beyond the chain",
       [](VsockGuest& g) { g.send(vs::kReadWrite, kGuestPort, kHostPort, "abc", 0, {.length = 4}); }},
      {"length short of the chain",
       [](VsockGuest& g) { g.send(vs::kReadWrite, kGuestPort, kHostPort, "abc", 0, {.length = 2}); }},
      {"length of 4 GiB",
       [](VsockGuest& g) {
         g.send(vs::kReadWrite, kGuestPort, kHostPort, "abc", 0, {.length = UINT32_MAX});
       }},
      {"more than our buffer",
       [](VsockGuest& g) { g.send(vs::kReadWrite, kGuestPort, kHostPort, pattern((256 << 10) + 1)); }},
      {"unknown operation", [](VsockGuest& g) { g.send(0, kGuestPort, kHostPort); }},
      {"a second request", [](VsockGuest& g) { g.send(vs::kRequest, kGuestPort, kHostPort); }},
      {"a response not asked for", [](VsockGuest& g) { g.send(vs::kResponse, kGuestPort, kHostPort); }},
      {"bytes after the end",
       [](VsockGuest& g) {
         g.send(vs::kShutdown, kGuestPort, kHostPort, {}, vs::kNoSend);
         g.send(vs::kReadWrite, kGuestPort, kHostPort, "x");
       }},
      {"credit for what was never sent",
       [](VsockGuest& g) {
         g.forwarded = 1;
         g.send(vs::kCreditUpdate, kGuestPort, kHostPort);
       }},
  };
  for (const auto& [name, offend] : offences) {
    CAPTURE(name);
    VsockGuest guest;
    guest.giveBuffers(8);
    std::optional<vs::Ended> ended;
    const Fd socket = guest.bindSocket(kHostPort, &ended);
    guest.open(kGuestPort, kHostPort);
    offend(guest);
    CHECK(guest.receive().header.operation == vs::kReset);
    CHECK(atEnd(socket.get()));
    CHECK(guest.device->connections() == 0);
    CHECK(ended->reset);
    CHECK(guest.quiet());
    CHECK(guest.device->metrics.errors == 1);
  }
}

TEST_CASE("vsock: bytes before the answer to our request are refused") {
  VsockGuest guest;
  guest.giveBuffers(8);
  auto pair = VsockGuest::socketPair();
  std::optional<int> result;
  guest.run([&] {
    guest.device->connect(
        52, std::make_shared<vs::SocketEndpoint>(std::move(pair.second)),
        [&](int error, uint32_t) { result = error; }, nullptr);
  });
  const uint32_t port = guest.receive().header.sourcePort;
  guest.send(vs::kReadWrite, 52, port, "too soon");
  CHECK(guest.receive().header.operation == vs::kReset);
  CHECK(result == ECONNRESET);
  CHECK(atEnd(pair.first.get()));
}

TEST_CASE("vsock: floods end in bounded queues") {
  // No receive buffers: nothing can be answered.
  VsockGuest guest({.maxConnections = 64});
  std::vector<Fd> sockets;
  guest.run([&] {
    guest.device->listen(kHostPort, [&](uint32_t) {
      auto pair = VsockGuest::socketPair();
      sockets.push_back(std::move(pair.first));
      return std::make_shared<vs::SocketEndpoint>(std::move(pair.second));
    });
  });
  // The same port again and again: each second one resets the first.
  for (int i = 0; i < 1000; i++) {
    guest.send(vs::kRequest, kGuestPort, kHostPort);
  }
  CHECK(guest.device->connections() <= 1);
  // Connect and cut off.
  for (uint32_t i = 0; i < 1000; i++) {
    guest.send(vs::kRequest, 10'000 + i, kHostPort);
    guest.send(vs::kReset, 10'000 + i, kHostPort);
  }
  CHECK(guest.device->connections() <= 1);
  // More than are allowed, and credit requests for all.
  for (uint32_t i = 0; i < 100; i++) {
    guest.send(vs::kRequest, 20'000 + i, kHostPort);
    guest.send(vs::kCreditRequest, 20'000 + i, kHostPort);
    guest.send(vs::kCreditRequest, 20'000 + i, kHostPort);
  }
  CHECK(guest.device->connections() == 64);
  // For nobody, more than are remembered.
  guest.run([&] {
    for (uint32_t i = 0; i < 9000; i++) {
      guest.queuePacket(vs::kReadWrite, i, 9);
      guest.device->notify(Vsock::kTransmitQueue);
      guest.tx->takeUsed();
    }
  });
  // Buffers at last: what is owed comes, and no more than that.
  guest.giveBuffers(32);
  size_t packets = 0;
  size_t resets = 0;
  const auto takeAll = [&] {
    while (const auto packet = guest.poll()) {
      packets++;
      resets += packet->header.operation == vs::kReset ? 1 : 0;
    }
    return resets == 8192 && guest.device->connections() == 64;
  };
  CHECK(guest.host.waitUntil(takeAll));
  guest.run([&] { takeAll(); });
  CHECK(resets == 8192);
  CHECK(packets <= 8192 + 64 * 2);
}

TEST_CASE("vsock: guests that cut off without reading cannot pile up undelivered bytes") {
  VsockGuest guest({.maxConnections = 16});
  guest.giveBuffers(32);
  std::vector<Fd> sockets;
  guest.run([&] {
    guest.device->listen(kHostPort, [&](uint32_t) {
      auto pair = VsockGuest::socketPair();
      sockets.push_back(std::move(pair.first));
      return std::make_shared<vs::SocketEndpoint>(std::move(pair.second));
    });
  });
  const std::string bytes = pattern(256 << 10);
  for (uint32_t i = 0; i < 40; i++) {
    guest.send(vs::kRequest, 100 + i, kHostPort);
    guest.send(vs::kReadWrite, 100 + i, kHostPort, bytes);
    guest.send(vs::kReadWrite, 100 + i, kHostPort, bytes);
    guest.send(vs::kReset, 100 + i, kHostPort);
  }
  // The first ones still wait for their readers, the others were refused.
  CHECK(guest.device->connections() <= 16);
  const size_t accepted = sockets.size();
  CHECK(accepted <= 16);
  sockets.clear();
  CHECK(guest.host.waitUntil([&] { return guest.device->connections() == 0; }));
}

TEST_CASE("vsock: receive buffers of no use") {
  VsockGuest guest;
  const Fd socket = guest.bindSocket(kHostPort);
  guest.run([&] {
    const uint64_t address = guest.ram.alloc(64);
    for (int i = 0; i < 20; i++) {
      guest.rx->add({{address, 20, true}});
    }
    guest.device->notify(Vsock::kReceiveQueue);
  });
  guest.send(vs::kRequest, kGuestPort, kHostPort);
  guest.run([&] {
    for (int i = 0; i < 20; i++) {
      CHECK(guest.rx->takeUsed()->length == 0);
    }
    // With room for a header and nothing more.
    const uint64_t address = guest.ram.alloc(64);
    guest.rx->add({{address, sizeof(Header), true}});
    guest.rx->add({{address, sizeof(Header), true}});
    guest.device->notify(Vsock::kReceiveQueue);
    CHECK(guest.rx->takeUsed()->length == sizeof(Header));
  });
  writeAll(socket.get(), "bytes");
  CHECK(guest.host.waitUntil([&] { return guest.rx->hasUsed(); }));
  guest.run([&] { CHECK(guest.rx->takeUsed()->length == 0); });
  guest.giveBuffers(1);
  CHECK(guest.receive().payload == "bytes");
}

TEST_CASE("vsock: a broken queue fails the device") {
  for (const uint16_t queue : {Vsock::kReceiveQueue, Vsock::kTransmitQueue, Vsock::kEventQueue}) {
    VsockGuest guest;
    const Fd socket = guest.bindSocket(kHostPort);
    guest.run([&] {
      if (queue == Vsock::kReceiveQueue) {
        guest.queuePacket(vs::kRequest, kGuestPort, kHostPort);
        guest.device->notify(Vsock::kTransmitQueue);
      } else if (queue == Vsock::kEventQueue) {
        guest.device->resetTransport();
      }
      DriverRing& ring = queue == Vsock::kReceiveQueue    ? *guest.rx
                         : queue == Vsock::kTransmitQueue ? *guest.tx
                                                          : *guest.event;
      ring.pushAvailable(9999);
      guest.device->notify(queue);
      REQUIRE(guest.host.failures.size() == 1);
      CHECK(guest.host.failures[0].find("queue " + std::to_string(queue)) != std::string::npos);
    });
    guest.host.reset(*guest.device);
  }
}

TEST_CASE("vsock: random packets, seeded") {
  const std::string bytes = pattern(70'000);
  for (uint32_t seed = 1; seed <= 20; seed++) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto pick = [&](uint32_t count) { return static_cast<uint32_t>(random() % count); };
    VsockGuest guest({.maxConnections = 8, .linger = std::chrono::milliseconds(20)});
    guest.giveBuffers(8);
    std::vector<Fd> sockets;
    guest.run([&] {
      guest.device->listen(1, [&](uint32_t) {
        auto pair = VsockGuest::socketPair();
        sockets.push_back(std::move(pair.first));
        return std::make_shared<vs::SocketEndpoint>(std::move(pair.second));
      });
    });
    for (int step = 0; step < 300; step++) {
      Malformed malformed;
      if (pick(30) == 0) {
        malformed.length = random();
      }
      if (pick(30) == 0) {
        malformed.type = static_cast<uint16_t>(pick(4));
      }
      guest.forwarded = pick(20) == 0 ? random() : 0;
      guest.bufferSize = pick(4) == 0 ? random() : pick(5000);
      const auto operation = static_cast<uint16_t>(pick(3) == 0 ? uint32_t{vs::kRequest} : pick(9));
      guest.send(operation, pick(6), 1, pick(2) == 0 ? bytes.substr(0, pick(70'000)) : std::string(), pick(5),
                 malformed);
      if (!sockets.empty() && pick(4) == 0) {
        // The host's side: writes, reads, or goes.
        const size_t index = pick(static_cast<uint32_t>(sockets.size()));
        const int fd = sockets[index].get();
        char got[4096];
        switch (pick(3)) {
          case 0:
            (void)!::send(fd, bytes.data(), 3000, MSG_DONTWAIT | MSG_NOSIGNAL);
            break;
          case 1:
            (void)!::recv(fd, got, sizeof got, MSG_DONTWAIT);
            break;
          default:
            sockets.erase(sockets.begin() + static_cast<ptrdiff_t>(index));
        }
      }
      if (pick(3) == 0) {
        guest.run([&] {
          while (guest.poll()) {
          }
        });
      }
      if (pick(200) == 0) {
        guest.host.reset(*guest.device);
        CHECK(guest.device->connections() == 0);
        guest.restart();
        guest.giveBuffers(8);
      }
    }
    CHECK(guest.device->connections() <= 8);
    // Everybody goes: nothing stays, once the guest takes what is left.
    sockets.clear();
    guest.forwarded = 0;
    guest.bufferSize = INT32_MAX;
    for (uint32_t port = 0; port < 6; port++) {
      guest.send(vs::kCreditUpdate, port, 1);
    }
    CHECK(guest.host.waitUntil([&] {
      while (guest.poll()) {
      }
      return guest.device->connections() == 0;
    }));
  }
}

TEST_CASE("vsock: the windows of all connections together stay within a budget") {
  VsockGuest guest;
  guest.giveBuffers(8);
  guest.run([&] {
    guest.device->listen(80, [](uint32_t) {
      return std::make_shared<vs::LineEndpoint>(vs::LineEndpoint::Options{.onLine = [](std::string) {}});
    });
  });
  constexpr uint32_t kCount = 4096;
  std::vector<uint32_t> windows;
  for (uint32_t i = 0; i < kCount; i++) {
    windows.push_back(guest.open(1000 + i, 80).header.bufferSize);
  }
  guest.send(vs::kRequest, 1000 + kCount, 80);
  CHECK(guest.receive().header.operation == vs::kReset);
  CHECK(windows.front() == 256 << 10);
  CHECK(windows.back() >= 16 << 10);
  CHECK(std::accumulate(windows.begin(), windows.end(), uint64_t{0}) <= 128 << 20);
  // What ends gives its share back.
  for (uint32_t i = 0; i < kCount; i++) {
    guest.send(vs::kReset, 1000 + i, 80);
  }
  CHECK(guest.open(1, 80).header.bufferSize == 256 << 10);
}
