#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstring>

#include "support/fake_host.h"
#include "support/ring.h"
#include "virtio/balloon/balloon.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Balloon;

namespace {

constexpr uint64_t kAll = FakeHost::kDefaultFeatures | Balloon::kFeatureStatistics |
                          Balloon::kFeatureDeflateOnOom | Balloon::kFeatureReporting;
constexpr uint64_t kPage = 4096;

/// As Linux numbers the queues: those of features that were not negotiated are not counted.
struct Rig {
  explicit Rig(uint64_t features = kAll)
      : inflate(ram, 64),
        deflate(ram, 64),
        statistics(ram, 8),
        reporting(ram, 32),
        host(ram, rings(features), features),
        balloon([this] { changes++; }) {
    host.activate(balloon);
  }
  ~Rig() { host.reset(balloon); }

  std::vector<DriverRing*> rings(uint64_t features) {
    std::vector<DriverRing*> list{&inflate, &deflate};
    if ((features & Balloon::kFeatureStatistics) != 0) {
      list.push_back(&statistics);
    }
    if ((features & Balloon::kFeatureReporting) != 0) {
      list.push_back(&reporting);
    }
    list.resize(5);
    return list;
  }
  uint16_t reportingIndex(uint64_t features = kAll) {
    return (features & Balloon::kFeatureStatistics) != 0 ? 3 : 2;
  }
  Buffer pfns(const std::vector<uint32_t>& list) {
    const auto size = static_cast<uint32_t>(list.size() * 4);
    return {ram.place(list.data(), size), size, false};
  }
  void send(DriverRing& ring, uint16_t index, const std::vector<Buffer>& buffers) {
    ring.add(buffers);
    host.notify(balloon, index);
  }
  Used wait(DriverRing& ring) {
    REQUIRE(host.waitUntil([&] { return ring.hasUsed(); }));
    Used used;
    host.run([&] { used = *ring.takeUsed(); });
    return used;
  }
  /// Pages of the guest's that the host has memory for, of `count` from `address` on.
  size_t resident(uint64_t address, size_t count) {
    std::vector<unsigned char> map(count);
    REQUIRE(mincore(ram.memory.slice(address, count * kPage)->unsafeData(), count * kPage, map.data()) == 0);
    size_t pages = 0;
    for (const unsigned char page : map) {
      pages += page & 1;
    }
    return pages;
  }
  /// `count` pages that have something in them.
  uint64_t used(size_t count) {
    const uint64_t address = ram.alloc(count * kPage, kPage);
    ram.memory.slice(address, count * kPage)->fill(0xaa);
    return address;
  }
  void writeConfig(uint32_t offset, uint32_t value) {
    uint8_t bytes[4];
    std::memcpy(bytes, &value, 4);
    host.run([&] { balloon.configWritten(offset, bytes); });
  }

  GuestRam ram;
  DriverRing inflate, deflate, statistics, reporting;
  FakeHost host;
  std::atomic<int> changes{0};
  Balloon balloon;
};

std::vector<uint32_t> numbers(uint64_t address, uint32_t count) {
  std::vector<uint32_t> list;
  for (uint32_t i = 0; i < count; i++) {
    list.push_back(static_cast<uint32_t>(address / kPage) + i);
  }
  return list;
}

}  // namespace

TEST_CASE("balloon: what is put into it the host has again") {
  Rig rig;
  const uint64_t address = rig.used(300);
  CHECK(rig.resident(address, 300) == 300);
  // Any order, twice, in pieces that split a number; the last page is not among them.
  auto list = numbers(address, 299);
  std::reverse(list.begin() + 5, list.end());
  list.push_back(list[7]);
  const Buffer all = rig.pfns(list);
  rig.send(rig.inflate, Balloon::kInflateQueue,
           {{all.address, 101, false}, {all.address + 101, all.length - 101, false}});
  CHECK(rig.wait(rig.inflate).length == 0);
  CHECK(rig.resident(address, 299) == 0);
  CHECK(rig.resident(address + 299 * kPage, 1) == 1);
  CHECK(rig.balloon.metrics.requests == 1);
  CHECK(rig.balloon.metrics.bytesWritten == 299 * kPage);
  // Taken out again they read as zeros and can be used.
  rig.send(rig.deflate, Balloon::kDeflateQueue, {rig.pfns(numbers(address, 299))});
  CHECK(rig.wait(rig.deflate).length == 0);
  CHECK(rig.balloon.metrics.bytesRead == 299 * kPage);
  CHECK(rig.ram.read(address, kPage) == std::string(kPage, '\0'));
  rig.ram.write(address, "again", 5);
  CHECK(rig.ram.read(address, 5) == "again");
  CHECK(rig.balloon.metrics.errors == 0);
}

TEST_CASE("balloon: a large request is served in visits, and the next one behind it") {
  Rig rig;
  const uint64_t address = rig.used(2000);
  rig.inflate.add({rig.pfns(numbers(address, 1900))});
  rig.inflate.add({rig.pfns(numbers(address + 1900 * kPage, 100))});
  rig.host.notify(rig.balloon, Balloon::kInflateQueue);
  rig.wait(rig.inflate);
  rig.wait(rig.inflate);
  CHECK(rig.resident(address, 2000) == 0);
}

TEST_CASE("balloon: memory that is shared is given back too") {
  const GuestMemory memory({{0, 1 << 20}, {2 << 20, 1 << 20}}, {.backing = GuestMemory::Backing::kMemfd});
  const auto held = [&] {
    std::vector<unsigned char> map(256);
    size_t pages = 0;
    for (const auto& region : memory.regions()) {
      REQUIRE(mincore(region.host, region.size, map.data()) == 0);
      for (const unsigned char page : map) {
        pages += page & 1;
      }
    }
    return pages;
  };
  memory.slice(0, 1 << 20)->fill(1);
  memory.slice(2 << 20, 1 << 20)->fill(2);
  CHECK(held() == 512);
  CHECK(memory.discard(*memory.slice(2 << 20, 64 * kPage)) == 0);
  CHECK(held() == 448);
  CHECK(memory.read<uint8_t>(2 << 20) == 0);
  CHECK(memory.read<uint8_t>(0) == 1);
  // Whole pages only: one here. (Reading has filled one of the others again.)
  CHECK(memory.discard(*memory.slice(100, 2 * kPage)) == 0);
  CHECK(held() == 448);
  CHECK(memory.read<uint8_t>(kPage - 1) == 1);
  CHECK(memory.read<uint8_t>(2 * kPage) == 1);
  CHECK(memory.discard(*memory.slice(100, 200)) == 0);
  CHECK(memory.discard(GuestSlice()) == EFAULT);
}

TEST_CASE("balloon: page numbers outside RAM, too many of them, chains that are none") {
  Rig rig;
  const uint64_t address = rig.used(4);
  auto list = numbers(address, 4);
  list.insert(list.begin(), {UINT32_MAX, 4096, 5000, 0x80000000});
  rig.send(rig.inflate, Balloon::kInflateQueue, {rig.pfns(list)});
  rig.wait(rig.inflate);
  CHECK(rig.resident(address, 4) == 0);
  CHECK(rig.balloon.metrics.errors == 4);
  CHECK(rig.host.logs.size() == 1);  // however often it happens
  // Odd lengths, nothing, and a buffer in the wrong direction.
  const uint64_t at = rig.pfns(list).address;
  for (const std::vector<Buffer>& buffers :
       {std::vector<Buffer>{{at, 3, false}}, {{at, 0, false}}, {{at, 7, true}}}) {
    rig.send(rig.inflate, Balloon::kInflateQueue, buffers);
    CHECK(rig.wait(rig.inflate).length == 0);
    rig.send(rig.deflate, Balloon::kDeflateQueue, buffers);
    CHECK(rig.wait(rig.deflate).length == 0);
  }
  const uint64_t survivor = rig.used(1);
  std::vector<uint32_t> many(Balloon::kMaxPfns + 1, static_cast<uint32_t>(survivor / kPage));
  rig.send(rig.inflate, Balloon::kInflateQueue, {rig.pfns(many)});
  rig.wait(rig.inflate);
  CHECK(rig.resident(survivor, 1) == 1);
  // The rings themselves, and the request's own numbers, in the balloon: the guest's loss, and a broken
  // queue.
  rig.send(rig.inflate, Balloon::kInflateQueue, {rig.pfns(numbers(kPage, 10))});
  rig.host.notify(rig.balloon, Balloon::kInflateQueue);
  rig.host.notify(rig.balloon, Balloon::kDeflateQueue);
  CHECK(rig.ram.read(kPage, 16) == std::string(16, '\0'));
}

TEST_CASE("balloon: a broken ring is told once") {
  for (const uint16_t index : {uint16_t{0}, uint16_t{1}, uint16_t{2}, uint16_t{3}}) {
    Rig rig;
    DriverRing* const rings[] = {&rig.inflate, &rig.deflate, &rig.statistics, &rig.reporting};
    rings[index]->pushAvailable(999);
    rig.host.notify(rig.balloon, index);
    CHECK(rig.host.failures.size() == 1);
  }
}

TEST_CASE("balloon: the target reaches the driver, and the driver's answer the owner") {
  Rig rig;
  CHECK(rig.host.configUpdates == 0);
  rig.balloon.setTarget(0x12345);
  REQUIRE(rig.host.waitUntil([&] { return rig.host.configUpdates == 1; }));
  CHECK(rig.host.config == std::vector<uint8_t>{0x45, 0x23, 0x01, 0x00});
  rig.writeConfig(4, 1000);
  CHECK(rig.balloon.actual() == 1000);
  CHECK(rig.changes == 1);
  rig.writeConfig(4, 1000);
  CHECK(rig.changes == 1);
  // Byte by byte, beside it, and beyond.
  const uint8_t byte = 1;
  rig.host.run([&] { rig.balloon.configWritten(6, {&byte, 1}); });
  CHECK(rig.balloon.actual() == 1000 + 65536);
  rig.writeConfig(2, UINT32_MAX);
  CHECK(rig.balloon.actual() == 0x1ffff);
  rig.writeConfig(UINT32_MAX - 1, 7);
  CHECK(rig.balloon.actual() == 0x1ffff);
  // A reset empties the balloon, also as the next driver sees it.
  rig.host.reset(rig.balloon);
  CHECK(rig.balloon.actual() == 0);
  rig.balloon.setTarget(3);
  rig.host.activate(rig.balloon);
  CHECK(rig.host.config[0] == 3);
  CHECK(std::vector<uint8_t>(rig.host.config.begin() + 4, rig.host.config.end()) ==
        std::vector<uint8_t>(12, 0));
}

TEST_CASE("balloon: statistics on request, from the one buffer that waits") {
  Rig rig;
  // Asked for before the driver has a buffer there.
  rig.balloon.requestStatistics();
  rig.host.run([] {});
  const char first[] = "first 1234";
  rig.send(rig.statistics, Balloon::kStatisticsQueue, {{rig.ram.place(first, 10), 10, false}});
  CHECK(rig.changes == 1);
  CHECK(rig.balloon.takeStatistics() == std::vector<uint8_t>(first, first + 10));
  CHECK(!rig.balloon.takeStatistics());
  CHECK(!rig.statistics.hasUsed());
  for (int i = 0; i < 3; i++) {
    rig.balloon.requestStatistics();
    CHECK(rig.wait(rig.statistics).length == 0);
    CHECK(!rig.balloon.takeStatistics());
    rig.send(rig.statistics, Balloon::kStatisticsQueue, {{rig.ram.place(first, 10), 10, false}});
    CHECK(rig.balloon.takeStatistics()->size() == 10);
  }
  CHECK(rig.changes == 4);
  // A driver that queues more than one, and much; nobody asked.
  for (int i = 0; i < 5; i++) {
    rig.statistics.add({{rig.ram.alloc(100'000), 100'000, false}});
  }
  rig.host.notify(rig.balloon, Balloon::kStatisticsQueue);
  for (int i = 0; i < 5; i++) {
    CHECK(rig.wait(rig.statistics).length == 0);
  }
  CHECK(!rig.statistics.hasUsed());
  CHECK(!rig.balloon.takeStatistics());
  rig.balloon.requestStatistics();
  rig.wait(rig.statistics);
  rig.send(rig.statistics, Balloon::kStatisticsQueue, {{rig.ram.alloc(100'000), 100'000, false}});
  CHECK(rig.balloon.takeStatistics()->size() == Balloon::kMaxStatistics);
  // What was asked of a driver that went away is asked of the next.
  rig.balloon.requestStatistics();
  rig.wait(rig.statistics);
  rig.host.reset(rig.balloon);
  DriverRing inflate(rig.ram, 8), deflate(rig.ram, 8), statistics(rig.ram, 8), reporting(rig.ram, 8);
  rig.host.replaceRings({&inflate, &deflate, &statistics, &reporting, nullptr});
  rig.host.activate(rig.balloon);
  rig.send(statistics, Balloon::kStatisticsQueue, {{rig.ram.place(first, 10), 10, false}});
  CHECK(rig.balloon.takeStatistics()->size() == 10);
}

TEST_CASE("balloon: pages that the driver reports as free, with each numbering of the queues") {
  for (const uint64_t features : {kAll, kAll & ~Balloon::kFeatureStatistics}) {
    Rig rig(features);
    const uint64_t address = rig.used(64);
    // Not page-aligned: only what is wholly reported.
    rig.send(rig.reporting, rig.reportingIndex(features),
             {{address, 32 * kPage, true}, {address + 33 * kPage - 1, 3 * kPage, true}});
    CHECK(rig.wait(rig.reporting).length == 0);
    CHECK(rig.resident(address, 32) == 0);
    CHECK(rig.resident(address + 32 * kPage, 32) == 30);
  }
  GuestRam ram;
  DriverRing inflate(ram, 8), deflate(ram, 8), reporting(ram, 8);
  FakeHost host(ram, {&inflate, &deflate, nullptr, nullptr, &reporting}, kAll);
  Balloon balloon;
  host.activate(balloon);
  reporting.add({{ram.alloc(4096, 4096), 4096, true}});
  host.notify(balloon, Balloon::kReportingQueue);
  CHECK(host.waitUntil([&] { return reporting.hasUsed(); }));
  CHECK(balloon.metrics.bytesWritten == 4096);
  host.reset(balloon);
}

TEST_CASE("balloon: reported pages of a driver that poisons what is free keep their content") {
  Rig rig(kAll | Balloon::kFeaturePoison);
  const uint64_t address = rig.used(2);
  rig.writeConfig(12, 0xaaaaaaaa);
  rig.send(rig.reporting, rig.reportingIndex(), {{address, kPage, true}});
  rig.wait(rig.reporting);
  CHECK(rig.resident(address, 1) == 1);
  rig.writeConfig(12, 0);
  rig.send(rig.reporting, rig.reportingIndex(), {{address, kPage, true}});
  rig.wait(rig.reporting);
  CHECK(rig.resident(address, 1) == 0);
}

TEST_CASE("balloon: a pause lets the request at hand end, and holds the rest") {
  Rig rig;
  bool paused = false;
  const uint64_t address = rig.used(2000);
  rig.inflate.add({rig.pfns(numbers(address, 1000))});
  rig.inflate.add({rig.pfns(numbers(address + 1000 * kPage, 1000))});
  rig.host.run([&] {
    rig.balloon.notify(Balloon::kInflateQueue);
    rig.balloon.pause([&] { paused = true; });
    CHECK(!paused);
    rig.balloon.setTarget(7);
    rig.balloon.requestStatistics();
  });
  REQUIRE(rig.host.waitUntil([&] { return paused; }));
  rig.wait(rig.inflate);
  CHECK(rig.resident(address, 2000) == 1000);
  CHECK(rig.host.configUpdates == 0);
  rig.host.run([&] {
    rig.balloon.resume();
    CHECK(rig.host.configUpdates == 1);
    rig.balloon.notify(Balloon::kInflateQueue);
    // Paused and gone on with before the pause has come about: it is not told any more.
    paused = false;
    rig.balloon.pause([&] { paused = true; });
    rig.balloon.resume();
  });
  rig.wait(rig.inflate);
  CHECK(rig.resident(address, 2000) == 0);
  CHECK(!paused);
  // Reset while a request is at hand and a pause waits for it.
  rig.inflate.add({rig.pfns(numbers(address, 1000))});
  rig.host.run([&] {
    rig.balloon.notify(Balloon::kInflateQueue);
    rig.balloon.pause([&] { paused = true; });
    rig.balloon.reset();
  });
  rig.host.run([] {});
  CHECK(!paused);
}

TEST_CASE("balloon: saved and restored, with the buffer that waits for a request for statistics") {
  Rig rig;
  rig.writeConfig(4, 77);
  rig.writeConfig(12, 5);
  rig.balloon.setTarget(99);
  const uint64_t buffer = rig.ram.place("statistics", 10);
  rig.send(rig.statistics, Balloon::kStatisticsQueue, {{buffer, 10, false}});
  Balloon other([] {});
  Value state;
  bool paused = false;
  rig.host.run([&] {
    rig.balloon.pause([&] { paused = true; });
    CHECK(paused);
    state = rig.balloon.save();
    rig.balloon.reset();
    // A new process: the queues stand where they stood, with nothing in flight.
    for (uint16_t i = 0; i < 4; i++) {
      const auto config = rig.host.queue(i).config();
      const auto at = rig.host.queue(i).state();
      REQUIRE(rig.host.queue(i).configure(rig.ram.memory, config, 64, kAll) == nullptr);
      rig.host.queue(i).setState(at);
    }
    other.restore(rig.host, state);
    other.resume();
  });
  CHECK(other.actual() == 77);
  CHECK(other.target() == 99);
  CHECK(rig.host.queue(2).inFlight() == 1);
  other.requestStatistics();
  CHECK(rig.wait(rig.statistics).length == 0);
  rig.statistics.add({{buffer, 10, false}});
  rig.host.notify(other, Balloon::kStatisticsQueue);
  CHECK(other.takeStatistics()->size() == 10);
  const uint64_t address = rig.used(1);
  rig.inflate.add({rig.pfns(numbers(address, 1))});
  rig.host.notify(other, Balloon::kInflateQueue);
  rig.wait(rig.inflate);
  CHECK(rig.resident(address, 1) == 0);
  rig.host.run([&] {
    other.pause([] {});
    CHECK(*other.save().at("driverConfig").asBytes() == *state.at("driverConfig").asBytes());
    other.reset();
  });

  const auto refuses = [&](const char* field, Value value, const char* words) {
    Value::Record wrong = *state.asRecord();
    wrong[field] = std::move(value);
    std::string message;
    rig.host.run([&] {
      try {
        other.restore(rig.host, wrong);
      } catch (const ValueError& error) {
        message = error.what();
      }
    });
    CHECK_MESSAGE(message.find(words) != std::string::npos, message);
    CHECK(other.actual() == 0);
  };
  refuses("version", uint64_t{2}, "version: expected 1");
  refuses("target", uint64_t{1} << 32, "target: expected at most");
  refuses("driverConfig", Value::Bytes(3), "driverConfig: expected 12 bytes, got 3");
  refuses("statisticsHead", uint64_t{70'000}, "statisticsHead");
  refuses("statisticsHead", uint64_t{8}, "statisticsHead: no chain of the statistics queue: 8");
  refuses("statisticsHead", "x", "statisticsHead: expected a whole number");
}

TEST_CASE("balloon: reports are served where the driver has set up their queue alone") {
  GuestRam ram;
  DriverRing reporting(ram, 8);
  FakeHost host(ram, {nullptr, nullptr, nullptr, nullptr, &reporting}, kAll);
  Balloon balloon([] {});
  host.activate(balloon);
  reporting.add({{ram.alloc(4096, 4096), 4096, true}});
  host.notify(balloon, Balloon::kReportingQueue);
  CHECK(host.waitUntil([&] { return reporting.hasUsed(); }));
  host.reset(balloon);
}
