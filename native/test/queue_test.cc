#include "virtio/queue.h"

#include <doctest/doctest.h>

#include <random>
#include <set>

#include "support/ring.h"
#include "virtio/device.h"

using namespace tsvmm;
using namespace tsvmm::virtio;
using tsvmm::test::DriverRing;
using tsvmm::test::GuestRam;

namespace {

constexpr uint64_t kIndirectOnly = kFeatureVersion1 | kFeatureIndirect;
constexpr uint64_t kAll = kIndirectOnly | kFeatureEventIndex;

struct Fixture {
  explicit Fixture(uint64_t features = kIndirectOnly, uint16_t size = 8) : ring(ram, size) {
    REQUIRE(queue.configure(ram.memory, ring.config(), 256, features) == nullptr);
  }
  /// What pop() makes of whatever the ring holds now.
  Queue::Pop pop() { return queue.pop(chain); }
  std::string broken() { return queue.brokenReason() == nullptr ? "" : queue.brokenReason(); }

  GuestRam ram;
  DriverRing ring;
  Queue queue;
  Chain chain;
};

}  // namespace

TEST_CASE("a chain carries what the driver wrote and what the device writes") {
  for (const bool indirect : {false, true}) {
    Fixture f;
    const uint64_t first = f.ram.place("hello ", 6);
    const uint64_t second = f.ram.place("guest", 5);
    const uint64_t answer = f.ram.alloc(4);
    const uint64_t more = f.ram.alloc(16);
    const std::vector<test::Buffer> buffers = {{first, 6}, {second, 5}, {answer, 4, true}, {more, 16, true}};
    const uint16_t head = indirect ? f.ring.addIndirect(buffers) : f.ring.add(buffers);
    REQUIRE(f.pop() == Queue::Pop::kChain);
    CHECK(f.chain.head() == head);
    CHECK(f.chain.readableSize() == 11);
    CHECK(f.chain.writableSize() == 20);
    char text[12] = {};
    CHECK(f.chain.read(text, 8));
    CHECK_FALSE(f.chain.read(text + 8, 4));
    CHECK(f.chain.read(text + 8, 3));
    CHECK(std::string(text) == "hello guest");
    CHECK(f.chain.write("abcdef", 6));
    CHECK_FALSE(f.chain.write("0123456789abcdef", 16));
    CHECK(f.chain.writeAt(19, "z", 1));
    CHECK_FALSE(f.chain.writeAt(20, "z", 1));
    CHECK_FALSE(f.chain.writeAt(UINT64_MAX, "z", 1));
    f.queue.push(f.chain);
    const auto used = f.ring.takeUsed();
    REQUIRE(used);
    CHECK(used->length == 6);
    CHECK(f.ram.read(answer, 4) == "abcd");
    CHECK(f.ram.read(more, 2) == "ef");
    CHECK(f.ram.read(more + 15, 1) == "z");
    CHECK(f.pop() == Queue::Pop::kEmpty);
  }
}

TEST_CASE("iovecs cover exactly what is left") {
  Fixture f;
  f.ring.add({{f.ram.alloc(100), 100},
              {f.ram.alloc(50), 50},
              {f.ram.alloc(30), 30, true},
              {f.ram.alloc(30), 30, true}});
  REQUIRE(f.pop() == Queue::Pop::kChain);
  uint8_t skipped[10];
  CHECK(f.chain.read(skipped, 10));
  auto iovecs = f.chain.takeReadable(95);
  REQUIRE(iovecs.size() == 2);
  CHECK(iovecs[0].iov_len == 90);
  CHECK(iovecs[1].iov_len == 5);
  CHECK(f.chain.readableLeft() == 45);
  CHECK(f.chain.writableIovecs(1000).size() == 2);
  CHECK(f.chain.writableIovecs(30).size() == 1);
  f.chain.advanceWritten(31);
  iovecs = f.chain.writableIovecs(1000);
  REQUIRE(iovecs.size() == 1);
  CHECK(iovecs[0].iov_len == 29);
  f.chain.advanceWritten(1000);
  CHECK(f.chain.written() == 60);
}

TEST_CASE("rings that are misplaced or of a wrong size are refused") {
  GuestRam ram;
  DriverRing ring(ram, 8);
  const QueueConfig good = ring.config();
  Queue queue;
  const auto refused = [&](QueueConfig config) {
    const char* wrong = queue.configure(ram.memory, config, 256, kAll);
    CHECK_FALSE(queue.enabled());
    return wrong != nullptr;
  };
  const uint64_t end = 16 << 20;
  CHECK(queue.configure(ram.memory, good, 256, kAll) == nullptr);
  for (const uint16_t size : {0, 3, 6, 512, 65535}) {
    QueueConfig config = good;
    config.size = size;
    CHECK(refused(config));
  }
  for (const uint64_t address :
       {good.descriptors + 8, end, end - 127, UINT64_MAX, UINT64_MAX - 15, uint64_t{1} << 63}) {
    QueueConfig config = good;
    config.descriptors = address;
    CHECK(refused(config));
  }
  for (const uint64_t address : {good.available + 1, end, end - 20, UINT64_MAX - 1}) {
    QueueConfig config = good;
    config.available = address;
    CHECK(refused(config));
  }
  for (const uint64_t address : {good.used + 2, end, end - 68, UINT64_MAX - 3}) {
    QueueConfig config = good;
    config.used = address;
    CHECK(refused(config));
  }
}

TEST_CASE("every broken rule stops the queue and is named") {
  SUBCASE("available index too far ahead") {
    Fixture f;
    f.ring.setAvailableIndex(9);
    CHECK(f.pop() == Queue::Pop::kBroken);
    CHECK(f.broken() == "the available index is more than the queue's size ahead");
    // It stays broken, whatever the driver does next.
    f.ring.setAvailableIndex(0);
    CHECK(f.pop() == Queue::Pop::kBroken);
    CHECK_FALSE(f.queue.hasAvailable());
  }
  SUBCASE("head out of range") {
    Fixture f;
    f.ring.pushAvailable(8);
    CHECK(f.pop() == Queue::Pop::kBroken);
  }
  SUBCASE("next out of range") {
    Fixture f;
    f.ring.writeDescriptor(0, f.ram.alloc(16), 16, test::kDescriptorNext, 8);
    f.ring.pushAvailable(0);
    CHECK(f.pop() == Queue::Pop::kBroken);
    CHECK(f.broken() == "a descriptor's successor is outside its table");
  }
  SUBCASE("a loop, also of zero-length descriptors") {
    for (const uint32_t length : {16u, 0u}) {
      Fixture f;
      f.ring.writeDescriptor(0, f.ram.alloc(16), length, test::kDescriptorNext, 1);
      f.ring.writeDescriptor(1, f.ram.alloc(16), length, test::kDescriptorNext, 0);
      f.ring.pushAvailable(0);
      CHECK(f.pop() == Queue::Pop::kBroken);
      CHECK(f.broken() == "a descriptor chain has a loop");
    }
  }
  SUBCASE("a buffer outside RAM, across its end, wrapping") {
    const uint64_t end = 16 << 20;
    for (const uint64_t address : {end, end - 8, UINT64_MAX, UINT64_MAX - 7, uint64_t{0} - 16}) {
      Fixture f;
      f.ring.writeDescriptor(0, address, 16, 0, 0);
      f.ring.pushAvailable(0);
      CHECK(f.pop() == Queue::Pop::kBroken);
      CHECK(f.broken() == "a descriptor's buffer is not inside RAM");
    }
  }
  SUBCASE("readable after writable") {
    Fixture f;
    const uint64_t buffer = f.ram.alloc(16);
    f.ring.writeDescriptor(0, buffer, 16, test::kDescriptorNext | test::kDescriptorWrite, 1);
    f.ring.writeDescriptor(1, buffer, 16, 0, 0);
    f.ring.pushAvailable(0);
    CHECK(f.pop() == Queue::Pop::kBroken);
    CHECK(f.broken() == "a readable descriptor follows a writable one");
  }
  SUBCASE("indirect: not negotiated") {
    Fixture f(kFeatureVersion1);
    f.ring.addIndirect({{f.ram.alloc(16), 16}});
    CHECK(f.pop() == Queue::Pop::kBroken);
    CHECK(f.broken() == "an indirect descriptor was not negotiated");
  }
  SUBCASE("indirect: nested") {
    Fixture f;
    const uint64_t table = f.ram.alloc(32);
    f.ring.writeDescriptorAt(table, f.ram.alloc(32), 32, test::kDescriptorIndirect, 0);
    f.ring.writeDescriptor(0, table, 32, test::kDescriptorIndirect, 0);
    f.ring.pushAvailable(0);
    CHECK(f.pop() == Queue::Pop::kBroken);
    CHECK(f.broken() == "an indirect table is nested");
  }
  SUBCASE("indirect: bad tables") {
    const uint64_t end = 16 << 20;
    struct Case {
      uint64_t address;
      uint32_t length;
      uint16_t flags;
    };
    GuestRam scratch;
    for (const Case& c : {Case{4096, 0, 0}, Case{4096, 15, 0}, Case{4096, 17, 0}, Case{end - 8, 16, 0},
                          Case{end, 16, 0}, Case{UINT64_MAX - 15, 32, 0}, Case{4096, 16 * 1025, 0},
                          Case{4096, UINT32_MAX - 15, 0}, Case{4096, 16, test::kDescriptorNext}}) {
      Fixture f;
      f.ring.writeDescriptor(0, c.address, c.length,
                             static_cast<uint16_t>(test::kDescriptorIndirect | c.flags), 1);
      f.ring.pushAvailable(0);
      CHECK(f.pop() == Queue::Pop::kBroken);
    }
  }
  SUBCASE("indirect: next outside the table, and a loop inside it") {
    for (const uint16_t next : {uint16_t{2}, uint16_t{0}}) {
      Fixture f;
      const uint64_t table = f.ram.alloc(32);
      f.ring.writeDescriptorAt(table, f.ram.alloc(8), 8, test::kDescriptorNext, 1);
      f.ring.writeDescriptorAt(table + 16, f.ram.alloc(8), 8, test::kDescriptorNext, next);
      f.ring.writeDescriptor(0, table, 32, test::kDescriptorIndirect, 0);
      f.ring.pushAvailable(0);
      CHECK(f.pop() == Queue::Pop::kBroken);
    }
  }
  SUBCASE("more chains in flight than descriptors") {
    Fixture f;
    f.ring.writeDescriptor(0, f.ram.alloc(16), 16, 0, 0);
    for (int i = 0; i < 8; i++) {
      f.ring.pushAvailable(0);
      CHECK(f.pop() == Queue::Pop::kChain);
    }
    f.ring.pushAvailable(0);
    CHECK(f.pop() == Queue::Pop::kBroken);
  }
}

TEST_CASE("a chain in the main table may end in an indirect one") {
  Fixture f;
  const uint64_t table = f.ram.alloc(16);
  f.ring.writeDescriptorAt(table, f.ram.alloc(8), 8, test::kDescriptorWrite, 0);
  f.ring.writeDescriptor(0, f.ram.alloc(4), 4, test::kDescriptorNext, 1);
  f.ring.writeDescriptor(1, table, 16, test::kDescriptorIndirect, 0);
  f.ring.pushAvailable(0);
  REQUIRE(f.pop() == Queue::Pop::kChain);
  CHECK(f.chain.readableSize() == 4);
  CHECK(f.chain.writableSize() == 8);
}

TEST_CASE("interrupts follow the driver's wish") {
  SUBCASE("by flag") {
    Fixture f;
    const auto serve = [&] {
      f.ring.add({{f.ram.alloc(1), 1}});
      REQUIRE(f.pop() == Queue::Pop::kChain);
      f.queue.push(f.chain);
      return f.queue.needsInterrupt();
    };
    CHECK_FALSE(f.queue.needsInterrupt());
    CHECK(serve());
    CHECK_FALSE(f.queue.needsInterrupt());
    f.ring.setAvailableFlags(1);
    CHECK_FALSE(serve());
  }
  SUBCASE("by event index") {
    Fixture f(kAll, 64);
    const auto serve = [&](int count) {
      for (int i = 0; i < count; i++) {
        f.ring.add({{f.ram.alloc(1), 1}});
        REQUIRE(f.pop() == Queue::Pop::kChain);
        f.queue.push(f.chain);
        f.ring.takeUsed();
      }
      return f.queue.needsInterrupt();
    };
    f.ring.setUsedEvent(0);
    CHECK(serve(1));
    CHECK_FALSE(serve(1));
    f.ring.setUsedEvent(3);
    CHECK_FALSE(serve(1));
    CHECK(serve(1));
    f.ring.setUsedEvent(100);
    CHECK_FALSE(serve(50));
    CHECK(serve(60));
  }
}

TEST_CASE("notifications are asked for only when the queue is empty") {
  Fixture flags;
  flags.queue.disableNotifications();
  CHECK(flags.ring.usedFlags() == 1);
  CHECK_FALSE(flags.queue.enableNotifications());
  CHECK(flags.ring.usedFlags() == 0);
  flags.ring.add({{flags.ram.alloc(1), 1}});
  CHECK(flags.queue.enableNotifications());

  Fixture events(kAll);
  events.ring.add({{events.ram.alloc(1), 1}});
  REQUIRE(events.pop() == Queue::Pop::kChain);
  CHECK_FALSE(events.queue.enableNotifications());
  CHECK(events.ring.availableEvent() == 1);
}

TEST_CASE("drain serves all, can stop and go on, and is bounded") {
  Fixture f;
  for (int i = 0; i < 3; i++) {
    f.ring.add({{f.ram.alloc(1), 1}});
  }
  int served = 0;
  CHECK_FALSE(f.queue.drain([&](Chain& chain) {
    if (served == 2) {
      return false;
    }
    served++;
    f.queue.push(chain);
    return true;
  }));
  CHECK(served == 2);
  CHECK(f.queue.hasAvailable());
  CHECK_FALSE(f.queue.drain([&](Chain& chain) {
    served++;
    f.queue.push(chain);
    return true;
  }));
  CHECK(served == 3);

  // A driver that refills as fast as the device serves does not keep it for ever.
  f.ring.writeDescriptor(0, f.ram.alloc(1), 1, 0, 0);
  f.ring.pushAvailable(0);
  int rounds = 0;
  CHECK(f.queue.drain([&](Chain& chain) {
    rounds++;
    f.queue.push(chain);
    f.ring.pushAvailable(0);
    return true;
  }));
  CHECK(rounds == 16);
}

TEST_CASE("indexes wrap at 65536") {
  Fixture f(kAll, 4);
  for (int i = 0; i < 70000; i++) {
    f.ring.writeDescriptor(0, 4096, 1, 0, 0);
    f.ring.pushAvailable(0);
    REQUIRE(f.pop() == Queue::Pop::kChain);
    f.queue.push(f.chain);
  }
  CHECK(f.ring.usedIndex() == static_cast<uint16_t>(70000));
  CHECK(f.pop() == Queue::Pop::kEmpty);
}

TEST_CASE("random rings never lead outside RAM") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20000; round++) {
    GuestRam ram(64 << 10);
    DriverRing ring(ram, 16);
    Queue queue;
    REQUIRE(queue.configure(ram.memory, ring.config(), 256, kAll) == nullptr);
    for (uint16_t i = 0; i < 16; i++) {
      const uint64_t address = random() % 4 == 0 ? random() : random() % (80 << 10);
      const auto length = static_cast<uint32_t>(random() % 8 == 0 ? random() : random() % 4096);
      ring.writeDescriptor(i, address, length, static_cast<uint16_t>(random() % 8),
                           static_cast<uint16_t>(random() % 18));
    }
    for (int i = 0; i < 4; i++) {
      ring.pushAvailable(static_cast<uint16_t>(random() % 17));
    }
    Chain chain;
    int chains = 0;
    while (queue.pop(chain) == Queue::Pop::kChain) {
      chains++;
      const auto& base = ram.memory.regions()[0];
      for (const auto& slices : {chain.readable(), chain.writable()}) {
        for (const GuestSlice& slice : slices) {
          REQUIRE(slice.unsafeData() >= base.host);
          REQUIRE(slice.unsafeData() + slice.size() <= base.host + base.size);
        }
      }
      queue.push(chain);
    }
    REQUIRE(chains <= 4);
  }
}
