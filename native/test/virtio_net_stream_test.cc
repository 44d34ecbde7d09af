#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "support/net_guest.h"
#include "virtio/net/stream.h"

using namespace tsvmm;
using namespace tsvmm::test;
using namespace tsvmm::virtio;
using namespace tsvmm::virtio::net;

namespace {

/// passt's end.
struct Peer {
  Peer() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    guest = std::make_unique<NetGuest>(makeStreamBackend(Fd(ends[0]), "passt"), NetGuest::kFeatures);
    socket = Fd(ends[1]);
  }
  void put(const std::string& all) {
    REQUIRE(::send(socket.get(), all.data(), all.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(all.size()));
  }
  static std::string framed(const std::string& frame) {
    const uint32_t length = htonl(static_cast<uint32_t>(frame.size()));
    return std::string(reinterpret_cast<const char*>(&length), sizeof length) + frame;
  }
  std::string take(size_t size) {
    std::string all(size, '\0');
    REQUIRE(::recv(socket.get(), all.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size));
    return all;
  }

  std::unique_ptr<NetGuest> guest;
  Fd socket;
};

}  // namespace

TEST_CASE("net stream: frames pass both ways, however they are cut") {
  Peer peer;
  NetGuest& guest = *peer.guest;
  guest.addBuffers(50, 2000);
  const std::string a = frameTo(kGuestMac, 60, 'a');
  const std::string b = frameTo(kGuestMac, 65'534, 'b');
  const std::string c = frameTo(kGuestMac, 1000, 'c');
  const std::string all = Peer::framed(a) + Peer::framed(b) + Peer::framed(c);
  for (size_t at = 0; at < all.size(); at += 7001) {
    peer.put(all.substr(at, 7001));
    guest.host->run([] {});
  }
  CHECK(guest.waitFrame() == a);
  CHECK(guest.waitFrame() == b);
  CHECK(guest.waitFrame() == c);
  for (size_t i = 0; i < 2; i++) {
    guest.transmit({}, b);
    CHECK(peer.take(b.size() + 4) == Peer::framed(b));
  }
}

TEST_CASE("net stream: a peer that does not read makes the guest wait, and gets everything") {
  Peer peer;
  NetGuest& guest = *peer.guest;
  std::string expected;
  const auto reclaim = [&] {
    guest.host->run([&] {
      while (guest.tx().takeUsed()) {
      }
    });
  };
  for (char c = 'a'; guest.tx().freeDescriptors() == 64; c = c == 'z' ? 'a' : static_cast<char>(c + 1)) {
    const std::string frame = frameTo(kGuestMac, 9001, c);
    guest.transmit({}, frame);
    expected += Peer::framed(frame);
    reclaim();
  }
  for (int i = 0; i < 5; i++) {
    const std::string frame = frameTo(kGuestMac, 777, '.');
    guest.transmit({}, frame);
    expected += Peer::framed(frame);
  }
  CHECK(peer.take(expected.size()) == expected);
  CHECK(guest.device->metrics.errors == 0);
}

TEST_CASE("net stream: an end of the peer unplugs the cable and nothing more") {
  for (const bool buffers : {true, false}) {
    Peer peer;
    NetGuest& guest = *peer.guest;
    if (buffers) {
      guest.addBuffers(4, 600);
    }
    peer.socket.reset();
    CHECK(guest.host->waitUntil([&] { return !guest.host->logs.empty(); }));
    CHECK(guest.host->logs.at(0) == "passt has gone: the guest's cable is unplugged");
    CHECK(guest.host->config.at(6) == 0);
    guest.transmit({}, frameTo(kGuestMac, 100));
    guest.host->run([&] { CHECK(guest.tx().takeUsed().has_value()); });
    CHECK(guest.host->logs.size() == 1);
    CHECK(guest.host->failures.empty());
  }
}

TEST_CASE("net stream: a peer that dies while the guest waits for it lets the guest go on") {
  Peer peer;
  NetGuest& guest = *peer.guest;
  do {
    guest.transmit({}, frameTo(kGuestMac, 9001));
    guest.host->run([&] {
      while (guest.tx().takeUsed()) {
      }
    });
  } while (guest.tx().freeDescriptors() == 64);
  peer.socket.reset();
  CHECK(guest.host->waitUntil([&] {
    while (guest.tx().takeUsed()) {
    }
    return guest.tx().freeDescriptors() == 64;
  }));
}

TEST_CASE("net stream: what is no frame unplugs the cable") {
  for (const uint32_t length : {0u, 13u, 70'000u, 0xffffffffu}) {
    Peer peer;
    NetGuest& guest = *peer.guest;
    guest.addBuffers(4, 600);
    const uint32_t written = htonl(length);
    peer.put(std::string(reinterpret_cast<const char*>(&written), 4) + std::string(64, 'x'));
    CHECK(guest.host->waitUntil([&] { return !guest.host->logs.empty(); }));
    CHECK(guest.host->logs.at(0) == "passt has sent what is no frame: the guest's cable is unplugged");
    CHECK(guest.host->config.at(6) == 0);
  }
}
