#include <doctest/doctest.h>

#include "support/net_guest.h"

using namespace tsvmm;
using namespace tsvmm::test;
using namespace tsvmm::virtio;
using namespace tsvmm::virtio::net;

namespace {

constexpr uint64_t kAll = NetGuest::kFeatures | kFeatureControlReceiveExtra | kFeatureControlVlan |
                          kFeatureControlMac | kFeatureChecksum | kFeatureHostTso4 | kFeatureHostEcn |
                          kFeatureGuestChecksum | kFeatureControlOffloads;

std::string bytes(std::initializer_list<int> list) {
  std::string all;
  for (const int byte : list) {
    all.push_back(static_cast<char>(byte));
  }
  return all;
}

/// Whether frames still pass both ways.
void checkAlive(NetGuest& guest) {
  CHECK(guest.host->failures.empty());
  while (!guest.takeFrame().empty()) {
  }
  guest.addBuffers(2, 600);
  const std::string frame = frameTo(kGuestMac, 99, 'z');
  REQUIRE(guest.tap->put(frame));
  CHECK(guest.waitFrame() == frame);
  while (!guest.tap->take().empty()) {
  }
  guest.transmit({}, frame);
  CHECK(guest.tap->take().substr(sizeof(Header)) == frame);
}

}  // namespace

TEST_CASE("net hostile: what is no frame is given back and not sent") {
  NetGuest guest(kAll);
  const uint64_t at = guest.ram.alloc(1 << 20);
  const auto chain = [&](std::vector<Buffer> buffers, bool indirect = false) {
    guest.host->run([&] {
      if (indirect) {
        guest.tx().addIndirect(buffers);
      } else {
        guest.tx().add(buffers);
      }
      guest.device->notify(1);
      REQUIRE(guest.tx().takeUsed().has_value());
    });
  };
  chain({{at, 0, false}});
  chain({{at, 8, false}});
  chain({{at, 12, false}});
  chain({{at, 12, false}, {at, 13, false}});
  chain({{at, 12 + kMaxFrame + 1, false}});
  chain({{at, 1 << 20, false}});
  chain({{at, 2000, true}});
  chain({{at, 5, false}, {at, 2000, true}});
  std::vector<Buffer> many(1024, {at, 1, false});
  chain(many, true);  // 1012 parts of a byte: a frame, of zeros
  CHECK(guest.device->metrics.errors == 8);
  CHECK(guest.tap->take().size() == 1024);
  CHECK(guest.tap->take().empty());
  // The header cut into bytes is one.
  std::vector<Buffer> cut(12, {at, 1, false});
  cut.push_back({at, 60, false});
  chain(cut);
  CHECK(guest.tap->take().size() == 72);
  checkAlive(guest);
}

TEST_CASE("net hostile: a frame of more pieces than a system call takes is dropped") {
  NetGuest guest(kAll);
  const uint64_t at = guest.ram.alloc(16);
  const uint64_t table = guest.ram.alloc(1024 * 16);
  guest.host->run([&] {
    for (uint16_t i = 0; i < 1024; i++) {
      guest.tx().writeDescriptorAt(table + 16 * i, at, 1, i == 1023 ? 0 : kDescriptorNext,
                                   static_cast<uint16_t>(i + 1));
    }
    guest.tx().writeDescriptor(0, at, 12, kDescriptorNext, 1);
    guest.tx().writeDescriptor(1, table, 1024 * 16, kDescriptorIndirect, 0);
    guest.tx().pushAvailable(0);
    guest.device->notify(1);
    CHECK(guest.tx().usedIndex() == 1);
  });
  CHECK(guest.device->metrics.errors == 1);
  CHECK(guest.tap->take().empty());
}

TEST_CASE("net hostile: a chain of 4 GiB breaks the queue") {
  NetGuest guest(kAll);
  const uint64_t at = guest.ram.alloc(16 << 20);
  guest.host->run([&] {
    guest.tx().addIndirect(std::vector<Buffer>(257, {at, 16 << 20, false}));
    guest.device->notify(1);
  });
  CHECK(guest.host->failures.at(0) == "queue 1: a chain holds more than 4 GiB");
}

TEST_CASE("net hostile: headers that claim what is not negotiated or not there") {
  NetGuest guest(kAll);
  const std::string frame = frameTo(kGuestMac, 200);
  const auto sent = [&](Header header) {
    guest.transmit(header, frame);
    guest.host->run([&] { REQUIRE(guest.tx().takeUsed().has_value()); });
    return guest.tap->take();
  };
  const Header good = {1, 1, 54, 100, 34, 16, 0};
  CHECK(sent(good).size() == 212);
  const auto with = [&](auto change) {
    Header header = good;
    change(header);
    return header;
  };
  // Not TSO6, not UFO, unknown, without size, without checksum.
  CHECK(sent(with([](Header& h) { h.gsoType = 4; })).empty());
  CHECK(sent(with([](Header& h) { h.gsoType = 3; })).empty());
  CHECK(sent(with([](Header& h) { h.gsoType = 0x7f; })).empty());
  CHECK(sent(with([](Header& h) { h.gsoSize = 0; })).empty());
  CHECK(sent(with([](Header& h) { h.flags = 0; })).empty());
  // The checksum's place.
  CHECK(sent(with([](Header& h) { h.checksumStart = 183; })).empty());
  CHECK(sent(with([](Header& h) { h.checksumStart = 0xffff; })).empty());
  CHECK(sent(with([](Header& h) { h.checksumOffset = 0xffff; })).empty());
  CHECK(sent(with([](Header& h) { h.checksumStart = 182; })).size() == 212);
  // Unknown flags are dropped, a hint that cannot be true is corrected, ECN is known.
  Header seen;
  std::memcpy(&seen, sent(with([](Header& h) { h = {0xff, 0x81, 0xffff, 100, 34, 16, 77}; })).data(),
              sizeof seen);
  CHECK(seen.flags == 1);
  CHECK(seen.headerLength == 200);
  CHECK(seen.gsoType == 0x81);
  CHECK(seen.buffers == 0);
  // Nothing of it negotiated.
  NetGuest plain;
  plain.transmit(good, frame);
  plain.transmit({1, 0, 0, 0, 34, 16, 0}, frame);
  CHECK(plain.tap->take().empty());
  CHECK(plain.device->metrics.errors == 2);
  checkAlive(guest);
}

TEST_CASE("net hostile: receive buffers without room for a header, or that are not writable") {
  for (const Buffer& bad :
       {Buffer{0x100000, 11, true}, Buffer{0x100000, 2000, false}, Buffer{0x100000, 0, true}}) {
    NetGuest guest;
    guest.host->run([&] { guest.rx().add({bad}); });
    REQUIRE(guest.tap->put(frameTo(kGuestMac, 60)));
    CHECK(guest.host->waitUntil([&] { return !guest.host->failures.empty(); }));
    CHECK(guest.host->failures[0] == "queue 0: a receive buffer is smaller than the header");
  }
}

TEST_CASE("net hostile: broken rings") {
  {
    NetGuest guest;
    guest.addBuffers(2, 600);
    guest.host->run([&] { guest.rx().pushAvailable(9999); });
    REQUIRE(guest.tap->put(frameTo(kGuestMac, 60)));
    CHECK(guest.host->waitUntil([&] { return !guest.host->failures.empty(); }));
  }
  {
    NetGuest guest;
    guest.host->run([&] {
      guest.control().setAvailableIndex(1000);
      guest.device->notify(2);
    });
    CHECK(guest.host->failures.size() == 1);
  }
  {
    // The same buffer over and over: more are in flight than there are descriptors.
    NetGuest guest;
    guest.host->run([&] {
      guest.rx().writeDescriptor(0, guest.ram.alloc(64), 16, kDescriptorWrite, 0);
      for (int i = 0; i < 64; i++) {
        guest.rx().pushAvailable(0);
      }
    });
    REQUIRE(guest.tap->put(frameTo(kGuestMac, 60)));
    CHECK(guest.host->waitUntil([&] { return guest.tap->reads > 0; }));
    guest.host->run([&] {
      guest.rx().pushAvailable(0);
      guest.device->notify(0);
    });
    CHECK(guest.host->waitUntil([&] { return guest.rx().usedIndex() > 0 || !guest.host->failures.empty(); }));
  }
}

TEST_CASE("net hostile: notifications of queues that are not in use") {
  NetGuest guest(NetGuest::kFeatures | kFeatureMultiQueue, 4);
  for (uint16_t i = 0; i < 9; i++) {
    guest.notify(i);
  }
  checkAlive(guest);
  // Without the feature the control queue is the third, whatever there are.
  NetGuest single(NetGuest::kFeatures, 4);
  single.host->run([&] {
    const uint64_t at = single.ram.alloc(16);
    single.rx(1).add({{single.ram.place("\x00\x01\x01", 3), 3, false}, {at, 1, true}});
    single.device->notify(2);
    CHECK(single.rx(1).takeUsed().value().length == 1);
  });
  checkAlive(single);
}

TEST_CASE("net hostile: commands of the control queue that are wrong are refused") {
  NetGuest guest(kAll);
  for (const std::string& bad : {bytes({0}),
                                 bytes({0, 0}),
                                 bytes({0, 6, 1}),
                                 bytes({0, 255, 1}),
                                 bytes({1, 0}),
                                 bytes({1, 0, 0, 0, 0}),
                                 bytes({1, 0, 0, 0, 0, 0}),
                                 bytes({1, 0, 1, 0, 0, 0, 0, 0, 0, 0}),
                                 bytes({1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}),
                                 bytes({1, 1, 2, 0, 0, 0, 0}),
                                 bytes({1, 2}),
                                 bytes({2, 0, 0}),
                                 bytes({2, 0, 0, 0x10}),
                                 bytes({2, 2, 1, 0}),
                                 bytes({3, 0}),
                                 bytes({4, 0, 1, 0}),
                                 bytes({5, 0, 0xff, 0, 0, 0, 0, 0, 0, 0}),
                                 bytes({5, 1, 0, 0, 0, 0, 0, 0, 0, 0}),
                                 bytes({6, 0}),
                                 bytes({255, 255, 255})}) {
    CHECK(guest.command(bad) == 1);
  }
  // Nowhere to put the answer, and nothing to read.
  guest.host->run([&] {
    guest.control().add({{guest.ram.place("\0\0\1", 3), 3, false}});
    guest.control().add({{guest.ram.alloc(16), 16, true}});
    guest.device->notify(2);
    CHECK(guest.control().takeUsed().value().length == 0);
    CHECK(guest.control().takeUsed().value().length == 1);
  });
  // Not negotiated: promiscuous mode, extra modes, VLANs, addresses.
  NetGuest plain(FakeHost::kDefaultFeatures | kFeatureControlQueue);
  for (const std::string& bad : {bytes({0, 0, 1}), bytes({0, 2, 1}), bytes({2, 0, 1, 0}),
                                 bytes({1, 1, 2, 0, 0, 0, 0, 0}), bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 0})}) {
    CHECK(plain.command(bad) == 1);
  }
  checkAlive(guest);
}

TEST_CASE("net: the driver chooses which frames it gets") {
  NetGuest guest(kAll, 1, {}, 256);
  guest.addBuffers(100, 600);
  constexpr MacAddress kOther = {2, 0, 0, 0, 0, 2};
  constexpr MacAddress kGroup = {1, 0, 0x5e, 0, 0, 1};
  constexpr MacAddress kAllHosts = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  // A frame that is not wanted is followed by one that is.
  const auto passes = [&](const MacAddress& to, const std::string& type = std::string("\x08\x00", 2)) {
    REQUIRE(guest.tap->put(frameTo(to, 70, 'x', type)));
    REQUIRE(guest.tap->put(frameTo(guest.mac, 71)));
    const bool passed = guest.waitFrame().size() == 70;
    if (passed) {
      CHECK(guest.waitFrame().size() == 71);
    }
    return passed;
  };
  CHECK(passes(kOther));
  CHECK(guest.command(bytes({0, 0, 0})) == 0);
  CHECK_FALSE(passes(kOther));
  CHECK_FALSE(passes(kGroup));
  CHECK(passes(kAllHosts));
  CHECK(guest.command(bytes({0, 1, 1})) == 0);  // all multicast
  CHECK(passes(kGroup));
  CHECK(guest.command(bytes({0, 1, 0})) == 0);
  CHECK(guest.command(bytes({1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1})) == 0);
  CHECK(passes(kOther));
  CHECK(passes(kGroup));
  CHECK_FALSE(passes({2, 0, 0, 0, 0, 3}));
  // More addresses than are kept: all of the kind.
  std::string tables = bytes({1, 0, 65, 0, 0, 0}) + std::string(65 * 6, '\2') + bytes({0, 0, 0, 0});
  CHECK(guest.command(tables) == 0);
  CHECK(passes({2, 0, 0, 0, 0, 3}));
  CHECK_FALSE(passes(kGroup));
  CHECK(guest.command(bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 0})) == 0);
  CHECK(guest.command(bytes({0, 5, 1})) == 0);  // no broadcast
  CHECK_FALSE(passes(kAllHosts));
  CHECK(guest.command(bytes({0, 2, 1})) == 0);  // all unicast
  CHECK(passes(kOther));
  // VLAN 5 is not wanted, then it is.
  const std::string vlan = std::string("\x81\x00\x00\x05", 4);
  CHECK_FALSE(passes(kOther, vlan));
  CHECK(guest.command(bytes({2, 0, 5, 0})) == 0);
  CHECK(passes(kOther, vlan));
  CHECK(guest.command(bytes({2, 1, 5, 0})) == 0);
  CHECK_FALSE(passes(kOther, vlan));
  CHECK(guest.command(bytes({0, 2, 0})) == 0);
  // Another address of its own.
  CHECK(guest.command(bytes({1, 1, 2, 0, 0, 0, 0, 0x33})) == 0);
  guest.mac = {2, 0, 0, 0, 0, 0x33};
  CHECK(guest.host->config.at(5) == 0x33);
  CHECK_FALSE(passes(kGuestMac));
}
