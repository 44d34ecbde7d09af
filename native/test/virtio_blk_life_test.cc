#include <cerrno>
#include <cstring>
#include <thread>

#include "support/blk_rig.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Blk;
using tsvmm::virtio::DiskRequest;

TEST_CASE("blk: reset forgets what is in flight, and the device works again") {
  auto control = std::make_shared<HeldDisk::Control>();
  GuestRam ram;
  DriverRing ring(ram, 16), fresh(ram, 16);
  FakeHost host(ram, {&ring});
  Blk blk(std::make_unique<HeldDisk>(control), optionsFor(16));
  host.activate(blk);
  const uint64_t header = ram.alloc(16), data = ram.alloc(512), status = ram.place("\xee", 1);
  ring.add({{header, 16, false}, {data, 512, true}, {status, 1, true}});
  host.notify(blk, 0);
  REQUIRE(control->held.size() == 1);
  host.reset(blk);
  CHECK(control->detached == 1);
  CHECK(!ring.hasUsed());
  CHECK(static_cast<uint8_t>(ram.read(status, 1)[0]) == 0xee);
  host.replaceRings({&fresh});
  host.activate(blk);
  fresh.add({{header, 16, false}, {data, 512, true}, {status, 1, true}});
  host.notify(blk, 0);
  REQUIRE(control->held.size() == 1);
  host.run([&] { control->finish(control->held[0]); });
  CHECK(fresh.hasUsed());
  CHECK(!host.failures.size());
  host.reset(blk);
  host.reset(blk);
  CHECK(blk.close());
  host.run([&] { blk.activate(host); });
  CHECK(host.failures.size() == 1);
}

TEST_CASE("blk: reset waits for real requests, again and again") {
  TempFile file(pattern(4 << 20));
  GuestRam ram;
  Blk blk(diskOn(file.path), optionsFor(4 << 11));
  DriverRing first(ram, 64);
  FakeHost host(ram, {&first}, kAllFeatures);
  const uint64_t header = ram.alloc(16), data = ram.alloc(3 << 20), status = ram.alloc(1);
  for (int round = 0; round < 20; round++) {
    DriverRing ring(ram, 64);
    host.replaceRings({&ring});
    host.activate(blk);
    for (int i = 0; i < 16; i++) {
      ring.add({{header, 16, false}, {data, 3 << 20, true}, {status, 1, true}});
    }
    host.notify(blk, 0);
    host.reset(blk);
    const uint16_t used = ring.usedIndex();
    host.run([] {});
    CHECK(ring.usedIndex() == used);
  }
}

TEST_CASE("blk: several queues, many requests") {
  TempFile file(pattern(1 << 20));
  GuestRam ram;
  DriverRing a(ram, 128), b(ram, 128);
  FakeHost host(ram, {&a, &b}, kAllFeatures | virtio::kFeatureEventIndex);
  Blk blk(diskOn(file.path), optionsFor(2048));
  host.activate(blk);
  const uint64_t header = ram.alloc(16), data = ram.alloc(64 << 10), status = ram.alloc(1);
  int done = 0;
  for (int round = 0; round < 10; round++) {
    for (DriverRing* ring : {&a, &b}) {
      for (int i = 0; i < 40; i++) {
        // 40 * 64 KiB + the next round's: more than one visit copies.
        ring->add({{header, 16, false}, {data, 64 << 10, true}, {status, 1, true}});
      }
    }
    host.notify(blk, 0);
    host.notify(blk, 1);
    for (DriverRing* ring : {&a, &b}) {
      for (int i = 0; i < 40; i++) {
        REQUIRE(host.waitUntil([&] { return ring->hasUsed(); }));
        host.run([&] { CHECK(ring->takeUsed()->length == (64 << 10) + 1); });
        done++;
      }
    }
  }
  CHECK(done == 800);
  CHECK(host.interrupts(1) > 0);
  host.reset(blk);
}

TEST_CASE("blk: pause waits for what is in flight, and resume goes on") {
  auto control = std::make_shared<HeldDisk::Control>();
  Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16));
  uint64_t first = 0, second = 0;
  rig.queue(0, 0, {{rig.ram.alloc(512), 512, true}}, first);
  rig.host.notify(rig.blk, 0);
  bool paused = false;
  rig.host.run([&] { rig.blk.pause([&] { paused = true; }); });
  CHECK(!paused);
  rig.queue(4, 0, {}, second);
  rig.host.notify(rig.blk, 0);
  CHECK(control->held.size() == 1);  // the second is not taken
  rig.host.run([&] { control->finishAll(); });
  CHECK(paused);
  rig.wait();
  rig.host.run([&] { rig.blk.resume(); });
  rig.host.run([] {});
  REQUIRE(control->held.size() == 1);
  rig.host.run([&] { control->finishAll(); });
  rig.wait();
  // Nothing in flight: at once. A reset forgets it.
  paused = false;
  rig.host.run([&] { rig.blk.pause([&] { paused = true; }); });
  CHECK(paused);
  rig.host.reset(rig.blk);
  rig.host.activate(rig.blk);
  uint64_t third = 0;
  rig.queue(4, 0, {}, third);
  rig.host.notify(rig.blk, 0);
  CHECK(control->held.size() == 1);
}

TEST_CASE("blk: saved on one device, restored on another, and I/O goes on") {
  TempFile file(pattern(64 * 512));
  GuestRam ram;
  DriverRing ring(ram, 64);
  FakeHost host(ram, {&ring}, kAllFeatures | uint64_t{1} << 11);
  const auto request = [&](Blk& blk, uint32_t type, uint64_t data, bool writable) {
    struct {
      uint32_t type, reserved;
      uint64_t sector;
    } header{type, 0, 3};
    ring.add({{ram.place(&header, 16), 16, false}, {data, 512, writable}, {ram.alloc(1), 1, true}});
    host.notify(blk, 0);
  };
  Value state;
  const std::string sector = pattern(512, 'S');
  {
    Blk blk(diskOn(file.path), optionsFor(64));
    host.activate(blk);
    const uint8_t through = 0;
    host.run([&] { blk.configWritten(32, {&through, 1}); });
    request(blk, 1, ram.place(sector.data(), 512), false);
    CHECK(host.waitUntil([&] { return ring.takeUsed().has_value(); }));
    host.run([&] { blk.pause([] {}); });
    // Made available while it is paused: the next device finds it.
    request(blk, 0, ram.alloc(512), true);
    host.run([&] { state = blk.save(); });
    host.reset(blk);
  }
  CHECK(state == Value(Value::Record{{"version", 1u}, {"sectors", 64u}, {"writeback", false}}));
  auto control = std::make_shared<HeldDisk::Control>();
  {
    Blk blk(diskOn(file.path), optionsFor(64));
    host.run([&] { blk.restore(host, state); });
    CHECK(!ring.hasUsed());
    host.run([&] { blk.resume(); });
    CHECK(host.waitUntil([&] { return ring.takeUsed().has_value(); }));
    CHECK(host.configUpdates == 0);
    host.reset(blk);
  }
  {
    // Writes are durable by themselves, as the driver had chosen; a larger disk is told.
    Blk blk(std::make_unique<HeldDisk>(control), optionsFor(128));
    host.run([&] { blk.restore(host, state); });
    CHECK(host.configUpdates == 0);
    host.run([&] { blk.resume(); });
    CHECK(host.configUpdates == 1);
    CHECK(host.config.at(0) == 128);
    request(blk, 1, ram.alloc(512), false);
    CHECK(control->lastDurable);
    host.reset(blk);
  }
  Blk smaller(std::make_unique<HeldDisk>(control), optionsFor(63));
  host.run([&] {
    CHECK_THROWS_AS(smaller.restore(host, state), ValueError);
    CHECK_THROWS_AS(smaller.restore(host, Value::Record{{"version", 2u}}), ValueError);
    CHECK_THROWS_AS(smaller.restore(host, Value{}), ValueError);
    CHECK_THROWS_AS(smaller.restore(host, Value::Record{{"version", 1u}, {"sectors", 1u}, {"writeback", 1u}}),
                    ValueError);
  });
  CHECK(control->attached == 1);
}

TEST_CASE("blk: another disk takes over once the first is idle") {
  auto first = std::make_shared<HeldDisk::Control>(), second = std::make_shared<HeldDisk::Control>();
  Rig rig(std::make_unique<HeldDisk>(first), optionsFor(16));
  uint64_t status = 0;
  rig.queue(0, 0, {{rig.ram.alloc(512), 512, true}}, status);
  rig.host.notify(rig.blk, 0);
  std::atomic<int> told{0};
  rig.blk.replace(
      std::make_unique<HeldDisk>(second), 32,
      [&](bool replaced, std::unique_ptr<virtio::Disk> unused) { told += replaced && unused ? 1 : 100; });
  rig.host.run([] {});
  // What follows waits for the new one.
  rig.queue(0, 20, {{rig.ram.alloc(512), 512, true}}, status);
  rig.host.notify(rig.blk, 0);
  CHECK(first->held.size() == 1);
  CHECK(rig.host.configUpdates == 0);
  rig.host.run([&] { first->finishAll(); });
  rig.wait();
  REQUIRE(rig.host.waitUntil([&] { return second->held.size() == 1; }));
  CHECK(told == 1);
  CHECK(first->detached == 1);
  CHECK(rig.host.configUpdates == 1);
  CHECK(rig.host.config == std::vector<uint8_t>{32, 0, 0, 0, 0, 0, 0, 0});
  CHECK(rig.blk.sectors() == 32);
  rig.host.run([&] { second->finishAll(); });
  CHECK(rig.wait().length == 1);  // nothing was read
  // Smaller again: the old end is outside now.
  rig.blk.replace(std::make_unique<HeldDisk>(first), 8, [&](bool, std::unique_ptr<virtio::Disk>) { told++; });
  REQUIRE(rig.host.waitUntil([&] { return told == 2; }));
  CHECK(rig.readSectors(8, 512).status == 1);
  CHECK(rig.host.configUpdates == 2);
}

TEST_CASE("blk: another disk while reset, paused, or never") {
  auto control = std::make_shared<HeldDisk::Control>();
  std::vector<bool> told;
  const auto tell = [&](bool replaced, std::unique_ptr<virtio::Disk>) { told.push_back(replaced); };
  {
    Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16));
    uint64_t status = 0;
    rig.queue(4, 0, {}, status);
    rig.host.notify(rig.blk, 0);
    // In flight for ever; the reset puts it in place, and the driver hears of it when it is back.
    rig.blk.replace(std::make_unique<HeldDisk>(control), 32, tell);
    rig.host.reset(rig.blk);
    CHECK(told == std::vector<bool>{true});
    rig.blk.replace(std::make_unique<HeldDisk>(control), 64, tell);
    CHECK(told.size() == 2);
    CHECK(rig.host.configUpdates == 0);
    rig.host.activate(rig.blk);
    CHECK(rig.host.configUpdates == 1);
    CHECK(rig.host.config.at(0) == 64);
    rig.host.run([&] { rig.blk.pause([] {}); });
    rig.blk.replace(std::make_unique<HeldDisk>(control), 65, tell);
    rig.host.run([] {});
    CHECK(told.size() == 3);
    CHECK(rig.host.configUpdates == 1);
    rig.host.run([&] { rig.blk.resume(); });
    CHECK(rig.host.configUpdates == 2);
  }
  CHECK(told == std::vector<bool>{true, true, true});
}

TEST_CASE("blk: a limit on operations and one on bytes hold, and nothing is lost") {
  TempFile file(pattern(1 << 20));
  for (const bool bytes : {false, true}) {
    GuestRam ram;
    DriverRing ring(ram, 64);
    FakeHost host(ram, {&ring}, kAllFeatures);
    virtio::BlkOptions options = optionsFor(2048);
    // Five at once, then two hundred a second: ten take no less than 25 ms.
    if (bytes) {
      options.limits.bytesPerSecond = 200 * 4096;
      options.limits.bytesBurst = 5 * 4096;
    } else {
      options.limits.operationsPerSecond = 200;
      options.limits.operationsBurst = 5;
    }
    Blk blk(diskOn(file.path, {}), options);
    host.activate(blk);
    const uint64_t header = ram.alloc(16), data = ram.alloc(4096), status = ram.alloc(1);
    for (int i = 0; i < 10; i++) {
      ring.add({{header, 16, false}, {data, 4096, true}, {status, 1, true}});
    }
    const auto before = std::chrono::steady_clock::now();
    host.notify(blk, 0);
    for (int i = 0; i < 10; i++) {
      REQUIRE(host.waitUntil([&] { return ring.takeUsed().has_value(); }));
    }
    CHECK(std::chrono::steady_clock::now() - before >= std::chrono::milliseconds(20));
    CHECK(blk.metrics.requests == 10);
    // A reset while some wait.
    for (int i = 0; i < 20; i++) {
      ring.add({{header, 16, false}, {data, 4096, true}, {status, 1, true}});
    }
    host.notify(blk, 0);
    host.reset(blk);
  }
}

TEST_CASE("blk: the driver may turn the write cache off") {
  auto control = std::make_shared<HeldDisk::Control>();
  constexpr uint64_t kConfigWce = uint64_t{1} << 11;
  Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16), kAllFeatures | kConfigWce);
  for (const uint8_t writeback : {0, 1}) {
    rig.host.run([&] { rig.blk.configWritten(32, {&writeback, 1}); });
    uint64_t status = 0;
    rig.queue(1, 0, {{rig.ram.alloc(512), 512, false}}, status);
    rig.host.notify(rig.blk, 0);
    CHECK(control->lastDurable == (writeback == 0));
  }
}

TEST_CASE("blk: one kick a visit") {
  auto control = std::make_shared<HeldDisk::Control>();
  Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16));
  uint64_t status = 0;
  for (int i = 0; i < 16; i++) {
    rig.queue(0, 0, {{rig.ram.alloc(512), 512, true}}, status);
  }
  rig.host.notify(rig.blk, 0);
  CHECK(control->held.size() == 16);
  CHECK(control->kicks == 1);
  rig.host.run([&] { control->finishAll(); });
  CHECK(rig.host.interrupts(0) == 1);
}
