#include <doctest/doctest.h>

#include "support/net_guest.h"

using namespace tsvmm;
using namespace tsvmm::test;
using namespace tsvmm::virtio;
using namespace tsvmm::virtio::net;

namespace {

constexpr uint64_t kMergeable = FakeHost::kDefaultFeatures | kFeatureMergeableBuffers;

std::string numbered(uint32_t number, size_t size = 200) {
  std::string frame = frameTo(kGuestMac, size);
  std::memcpy(frame.data() + kEthernetHeader, &number, sizeof number);
  return frame;
}
uint32_t numberOf(const std::string& frame) {
  uint32_t number = UINT32_MAX;
  if (frame.size() >= kEthernetHeader + sizeof number) {
    std::memcpy(&number, frame.data() + kEthernetHeader, sizeof number);
  }
  return number;
}

}  // namespace

TEST_CASE("net: frames pass both ways") {
  NetGuest guest;
  guest.addBuffers(8, 2048);
  const std::string to = frameTo(kGuestMac, 300, 'a');
  REQUIRE(guest.tap->put(to));
  CHECK(guest.waitFrame() == to);
  CHECK(guest.header.buffers == 1);

  const std::string from = frameTo(kGuestMac, 1514, 'b');
  guest.transmit({}, from);
  CHECK(guest.tap->take() == std::string(sizeof(Header), '\0') + from);
  CHECK(guest.host->waitUntil([&] { return guest.host->driverInterrupts > 0; }));
  CHECK(guest.tx().takeUsed().value().length == 0);
  CHECK(guest.device->metrics.requests == 2);
  CHECK(guest.device->metrics.bytesRead == 300);
  CHECK(guest.device->metrics.bytesWritten == 1514);
  CHECK(guest.device->metrics.errors == 0);
}

TEST_CASE("net: a long frame is spread over mergeable buffers, before and after short ones") {
  NetGuest guest;
  guest.addBuffers(60, 1536);
  for (const size_t size : {60u, 60'000u, 60'001u, 100u}) {
    const std::string frame = frameTo(kGuestMac, size, static_cast<char>('a' + size % 26));
    REQUIRE(guest.tap->put(frame));
    CHECK(guest.waitFrame() == frame);
    CHECK(guest.header.buffers == (size + sizeof(Header) + 1535) / 1536);
    guest.addBuffers(guest.header.buffers, 1536);
  }
  CHECK(guest.device->metrics.errors == 0);
}

TEST_CASE("net: a frame that finds too few buffers waits for more and is not lost") {
  NetGuest guest;
  guest.addBuffers(2, 1000);
  const std::string frame = frameTo(kGuestMac, 5000, 'q');
  REQUIRE(guest.tap->put(frame));
  CHECK(guest.host->waitUntil([&] { return guest.tap->reads > 0; }));
  REQUIRE(guest.tap->put(numbered(7)));
  guest.addBuffers(2, 1000);
  CHECK_FALSE(guest.rx().hasUsed());
  guest.addBuffers(3, 1000);
  CHECK(guest.waitFrame() == frame);
  CHECK(guest.header.buffers == 6);
  CHECK(numberOf(guest.waitFrame()) == 7);
  CHECK(guest.device->metrics.errors == 0);
}

TEST_CASE("net: a frame for which the whole queue is too small is dropped") {
  NetGuest guest(NetGuest::kFeatures, 1, {}, 4);
  guest.addBuffers(4, 100);
  REQUIRE(guest.tap->put(frameTo(kGuestMac, 1000)));
  REQUIRE(guest.tap->put(numbered(1, 80)));
  CHECK(numberOf(guest.waitFrame()) == 1);
  CHECK(guest.device->metrics.errors == 1);
}

TEST_CASE("net: without mergeable buffers a frame takes one buffer or none") {
  NetGuest guest(FakeHost::kDefaultFeatures);
  guest.addBuffers(2, 400);
  REQUIRE(guest.tap->put(frameTo(kGuestMac, 389)));
  REQUIRE(guest.tap->put(numbered(1, 388)));
  CHECK(numberOf(guest.waitFrame()) == 1);
  CHECK(guest.header.buffers == 1);
  CHECK(guest.device->metrics.errors == 1);
  REQUIRE(guest.tap->put(numbered(2)));
  CHECK(numberOf(guest.waitFrame()) == 2);
}

TEST_CASE("net: a buffer of many pieces, with the header cut") {
  NetGuest guest(FakeHost::kDefaultFeatures);
  std::vector<Buffer> pieces;
  const uint64_t base = guest.ram.alloc(2000);
  for (uint32_t i = 0; i < 40; i++) {
    pieces.push_back({base + 5 * i, 5, true});
  }
  pieces.push_back({base + 200, 1800, true});
  guest.host->run([&] {
    guest.buffers[0][guest.rx().addIndirect(pieces)] = base;
    guest.device->notify(0);
  });
  const std::string frame = frameTo(kGuestMac, 777, 'p');
  REQUIRE(guest.tap->put(frame));
  CHECK(guest.waitFrame() == frame);
}

TEST_CASE("net: reception does not freeze when the guest runs out of buffers under load, both ways at once") {
  for (const uint64_t features : {kMergeable, kMergeable | kFeatureEventIndex}) {
    NetGuest guest(features, 1, {}, 16);
    constexpr uint32_t kFrames = 3000;
    uint32_t put = 0, seen = 0, sent = 0, left = 0;
    while (seen < kFrames || left < kFrames) {
      while (put < kFrames && guest.tap->put(numbered(put))) {
        put++;
      }
      if (sent < kFrames && guest.tx().freeDescriptors() >= 2) {
        guest.transmit({}, numbered(sent++));
      }
      std::string out;
      while (!(out = guest.tap->take()).empty()) {
        REQUIRE(numberOf(out.substr(sizeof(Header))) == left);
        left++;
      }
      guest.host->run([&] {
        while (guest.tx().takeUsed()) {
        }
      });
      // Every so often all buffers are used up before there are new ones.
      if (guest.rx().freeDescriptors() == 16) {
        guest.addBuffers(1 + seen % 16, 600);
      }
      std::string in;
      while (!(in = guest.takeFrame()).empty()) {
        REQUIRE(numberOf(in) == seen);
        seen++;
      }
    }
    CHECK(guest.device->metrics.errors == 0);
    CHECK(guest.host->failures.empty());
  }
}

TEST_CASE("net: what the backend cannot take now is sent when it can") {
  NetGuest guest;
  uint32_t sent = 0;
  // Until the socket is full: then the device keeps a chain.
  do {
    guest.transmit({}, numbered(sent++, 2000));
    guest.host->run([&] {
      while (guest.tx().takeUsed()) {
      }
    });
  } while (guest.tx().freeDescriptors() == 64);
  for (uint32_t seen = 0; seen < sent;) {
    const std::string out = guest.tap->take();
    if (!out.empty()) {
      REQUIRE(numberOf(out.substr(sizeof(Header))) == seen);
      seen++;
    } else {
      guest.host->run([] {});
    }
  }
  CHECK(guest.device->metrics.errors == 0);
}

TEST_CASE("net: rate limits delay and lose nothing") {
  NetOptions options;
  options.toGuest = {.operationsPerSecond = 2000, .operationsBurst = 4};
  options.fromGuest = {.bytesPerSecond = 400'000, .bytesBurst = 400};
  NetGuest guest(NetGuest::kFeatures, 1, options);
  guest.addBuffers(40, 600);
  for (uint32_t i = 0; i < 30; i++) {
    if (!guest.tap->put(numbered(i))) {
      guest.host->run([] {});
      i--;
      continue;
    }
    guest.transmit({}, numbered(i));
  }
  for (uint32_t i = 0; i < 30; i++) {
    CHECK(numberOf(guest.waitFrame()) == i);
  }
  uint32_t left = 0;
  CHECK(guest.host->waitUntil([&] {
    for (std::string out; !(out = guest.tap->take()).empty(); left++) {
      REQUIRE(numberOf(out.substr(sizeof(Header))) == left);
    }
    return left == 30;
  }));
}

TEST_CASE("net: the cable") {
  NetGuest guest;
  guest.addBuffers(8, 600);
  CHECK(guest.tap->carrier);
  guest.device->setLink(false);
  CHECK(guest.host->waitUntil([&] { return guest.host->configUpdates == 1; }));
  CHECK(guest.host->config.at(6) == 0);
  CHECK_FALSE(guest.tap->carrier);
  REQUIRE(guest.tap->put(numbered(1)));
  guest.transmit({}, numbered(1));
  CHECK(guest.host->waitUntil([&] { return guest.tx().hasUsed(); }));
  CHECK(guest.tap->take().empty());
  // Read (and thrown away) before the cable is plugged again.
  CHECK(guest.host->waitUntil([&] { return guest.tap->reads >= 2; }));
  guest.device->setLink(true);
  CHECK(guest.host->waitUntil([&] { return guest.host->configUpdates == 2; }));
  CHECK(guest.host->config.at(6) == 1);
  REQUIRE(guest.tap->put(numbered(2)));
  CHECK(numberOf(guest.waitFrame()) == 2);
}

TEST_CASE(
    "net: a TAP device that is down loses frames and says so once; one that has gone unplugs the cable") {
  NetGuest guest;
  guest.tap->writeError = EIO;
  guest.transmit({}, numbered(1));
  guest.transmit({}, numbered(2));
  CHECK(guest.host->logs.size() == 1);
  CHECK(guest.host->logs[0].find("tap fake is down") == 0);
  CHECK(guest.device->metrics.errors == 2);
  guest.tap->writeError = EBADFD;
  guest.transmit({}, numbered(3));
  guest.transmit({}, numbered(4));
  CHECK(guest.host->logs.size() == 2);
  CHECK(guest.host->logs[1] == "tap fake has gone: the guest's cable is unplugged");
  CHECK(guest.host->config.at(6) == 0);
  for (int i = 0; i < 4; i++) {
    CHECK(guest.tx().takeUsed().has_value());
  }
  guest.device->setLink(true);
  guest.host->run([] {});
  CHECK(guest.host->config.at(6) == 0);
}

TEST_CASE("net: pairs of queues are used as the driver asks") {
  const uint64_t features = kMergeable | kFeatureControlQueue | kFeatureMultiQueue;
  NetGuest guest(features, 2);
  guest.addBuffers(4, 600, 0);
  guest.addBuffers(4, 600, 1);
  CHECK(guest.tap->active == 1);
  guest.transmit({}, numbered(1), 1);
  CHECK_FALSE(guest.tx(1).hasUsed());
  CHECK(guest.command(std::string("\x04\x00\x02\x00", 4)) == 0);
  CHECK(guest.tap->active == 2);
  REQUIRE(guest.tap->put(numbered(11), 1));
  REQUIRE(guest.tap->put(numbered(10), 0));
  CHECK(numberOf(guest.waitFrame(1)) == 11);
  CHECK(numberOf(guest.waitFrame(0)) == 10);
  guest.notify(3);
  CHECK(numberOf(guest.tap->take(1).substr(sizeof(Header))) == 1);
  CHECK(guest.command(std::string("\x04\x00\x01\x00", 4)) == 0);
  CHECK(guest.tap->active == 1);
  guest.host->run([&] { CHECK(guest.host->queue(2).inFlight() == 0); });
  for (const char* bad : {"\x04\x00\x00\x00", "\x04\x00\x03\x00", "\x04\x00\xff\xff", "\x04\x01\x01\x00"}) {
    CHECK(guest.command(std::string(bad, 4)) == 1);
  }
  CHECK(guest.command(std::string("\x04\x00\x01", 3)) == 1);
}

TEST_CASE("net: offloads follow the features and the control queue") {
  const uint64_t offered = kFeatureGuestChecksum | kFeatureGuestTso4 | kFeatureControlOffloads;
  NetGuest guest(NetGuest::kFeatures | offered);
  CHECK(guest.tap->offloads == (kFeatureGuestChecksum | kFeatureGuestTso4));
  CHECK(guest.command(std::string("\x05\x00\x02\x00\x00\x00\x00\x00\x00\x00", 10)) == 0);
  CHECK(guest.tap->offloads == kFeatureGuestChecksum);
  CHECK(guest.command(std::string("\x05\x00\x02\x04\x00\x00\x00\x00\x00\x00", 10)) == 1);  // UFO
  CHECK(guest.command(std::string("\x05\x00\x02\x00\x00\x00\x00", 7)) == 1);
  CHECK(guest.tap->offloads == kFeatureGuestChecksum);
}

TEST_CASE("net: paused it touches nothing, and its state goes on in another device") {
  NetGuest guest;
  guest.addBuffers(8, 600);
  CHECK(guest.command(std::string("\x00\x00\x00", 3)) == 0);  // not promiscuous
  CHECK(guest.command(std::string("\x01\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00\x55\x00\x00\x00\x00", 16)) ==
        0);
  REQUIRE(guest.tap->put(numbered(1)));
  CHECK(numberOf(guest.waitFrame()) == 1);
  bool paused = false;
  guest.host->run([&] { guest.device->pause([&] { paused = true; }); });
  CHECK(paused);
  guest.host->run([&] { CHECK(guest.host->queue(0).inFlight() == 0); });
  REQUIRE(guest.tap->put(numbered(2)));
  guest.host->run([] {});
  CHECK_FALSE(guest.rx().hasUsed());

  Value state;
  QueueState queues[3];
  guest.host->run([&] {
    state = guest.device->save();
    for (uint16_t i = 0; i < 3; i++) {
      queues[i] = guest.host->queue(i).state();
    }
  });
  CHECK(state.integer("version") == 1);

  // Another device over the same memory and rings, on another network.
  guest.host->reset(*guest.device);
  auto fake = std::make_unique<FakeTap>(1);
  FakeTap& tap = *fake;
  NetOptions options;
  options.mac = {2, 9, 9, 9, 9, 9};
  NetDevice second(std::move(fake), options);
  guest.host->replaceRings({&guest.rx(), &guest.tx(), &guest.control()});
  guest.host->run([&] {
    for (uint16_t i = 0; i < 3; i++) {
      guest.host->queue(i).setState(queues[i]);
    }
    second.restore(*guest.host, state);
  });
  REQUIRE(tap.put(numbered(3)));
  guest.host->run([] {});
  CHECK_FALSE(guest.rx().hasUsed());
  guest.host->run([&] {
    second.resume();
    for (uint16_t i = 0; i < 3; i++) {
      second.notify(i);
    }
  });
  CHECK(numberOf(guest.waitFrame()) == 3);
  REQUIRE(tap.put(frameTo({2, 9, 9, 9, 9, 9}, 60)));  // the filter is the saved one
  REQUIRE(tap.put(frameTo({2, 0, 0, 0, 0, 0x55}, 61)));
  CHECK(guest.waitFrame().size() == 61);
  guest.host->reset(second);

  const auto refused = [&](const std::string& field, Value value) {
    Value::Record record = *state.asRecord();
    record[field] = std::move(value);
    guest.host->run([&] { CHECK_THROWS_AS(second.restore(*guest.host, Value(record)), ValueError); });
  };
  refused("version", Value(2u));
  refused("pairs", Value(2u));
  refused("pairs", Value(0u));
  refused("offloads", Value(2u));
  refused("filter", Value());
  refused("linkUp", Value(1u));
}

TEST_CASE("net: a reset while it is busy leaves nothing behind, and a new driver starts afresh") {
  NetGuest guest;
  guest.addBuffers(2, 600);
  REQUIRE(guest.tap->put(frameTo(kGuestMac, 5000)));  // it waits for more buffers
  CHECK(guest.host->waitUntil([&] { return guest.tap->reads > 0; }));
  do {
    guest.transmit({}, numbered(0, 2000));
    guest.host->run([&] {
      while (guest.tx().takeUsed()) {
      }
    });
  } while (guest.tx().freeDescriptors() == 64);
  guest.host->reset(*guest.device);
  while (!guest.tap->take().empty()) {
  }
  guest.host->run([] {});
  CHECK_FALSE(guest.tx().hasUsed());

  DriverRing rx(guest.ram, 16), tx(guest.ram, 16), control(guest.ram, 16);
  guest.host->replaceRings({&rx, &tx, &control});
  guest.host->activate(*guest.device);
  const uint64_t address = guest.ram.alloc(2000);
  guest.host->run([&] {
    rx.add({{address, 2000, true}});
    guest.device->notify(0);
  });
  REQUIRE(guest.tap->put(numbered(5)));
  CHECK(guest.host->waitUntil([&] { return rx.hasUsed(); }));
  CHECK(numberOf(guest.ram.read(address + sizeof(Header), 200)) == 5);
  CHECK_FALSE(guest.device->close());
  guest.host->reset(*guest.device);
  CHECK(guest.device->close());
  guest.host->activate(*guest.device);
  CHECK(guest.host->failures.back() == "the network has been closed");
}

TEST_CASE("net: interrupts come only where the driver wants them") {
  NetGuest guest(kMergeable | kFeatureEventIndex);
  guest.rx().setUsedEvent(2);
  guest.addBuffers(8, 600);
  for (uint32_t i = 0; i < 3; i++) {
    REQUIRE(guest.tap->put(numbered(i)));
    CHECK(guest.host->waitUntil([&] { return guest.rx().usedIndex() == i + 1; }));
    CHECK(guest.host->driverInterrupts == (i == 2 ? 1 : 0));
  }
}
