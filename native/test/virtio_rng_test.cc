#include <doctest/doctest.h>

#include "support/fake_host.h"
#include "support/ring.h"
#include "virtio/rng/rng.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Rng;

namespace {

struct Rig {
  explicit Rig(const virtio::RateLimits& limits = {}) : ring(ram, 64), host(ram, {&ring}), rng(limits) {
    host.activate(rng);
  }
  ~Rig() { host.reset(rng); }
  uint32_t used() {
    REQUIRE(host.waitUntil([&] { return ring.hasUsed(); }));
    uint32_t length = 0;
    host.run([&] { length = ring.takeUsed()->length; });
    return length;
  }
  GuestRam ram;
  DriverRing ring;
  FakeHost host;
  Rng rng;
};

}  // namespace

TEST_CASE("rng: fills buffers with what does not repeat") {
  Rig rig;
  const uint64_t a = rig.ram.alloc(64), b = rig.ram.alloc(64);
  rig.ring.add({{a, 1, true}, {a + 1, 63, true}});
  rig.ring.add({{b, 64, true}});
  rig.host.notify(rig.rng, 0);
  CHECK(rig.used() == 64);
  CHECK(rig.used() == 64);
  CHECK(rig.ram.read(a, 64) != std::string(64, '\0'));
  CHECK(rig.ram.read(a, 64) != rig.ram.read(b, 64));
  CHECK(rig.rng.metrics.bytesRead == 128);
}

TEST_CASE("rng: a large buffer gets a part, and the rest stays as it was") {
  Rig rig;
  const uint64_t at = rig.ram.alloc(1 << 20);
  rig.ring.add({{at, 1 << 20, true}});
  rig.host.notify(rig.rng, 0);
  CHECK(rig.used() == Rng::kMaxPerRequest);
  CHECK(rig.ram.read(at + Rng::kMaxPerRequest, 4096) == std::string(4096, '\0'));
}

TEST_CASE("rng: more than one visit serves") {
  Rig rig;
  const uint64_t at = rig.ram.alloc(64 << 10);
  for (int i = 0; i < 64; i++) {
    rig.ring.add({{at, 64 << 10, true}});
  }
  rig.host.notify(rig.rng, 0);
  for (int i = 0; i < 64; i++) {
    CHECK(rig.used() == 64 << 10);
  }
}

TEST_CASE("rng: chains with nothing to fill, and a broken queue") {
  Rig rig;
  const uint64_t at = rig.ram.alloc(16);
  rig.ring.add({{at, 16, false}});
  rig.ring.add({{at, 16, false}, {at, 8, true}});
  rig.ring.add({{at, 0, true}});
  rig.host.notify(rig.rng, 0);
  CHECK(rig.used() == 0);
  CHECK(rig.used() == 8);
  CHECK(rig.used() == 0);
  rig.ring.add({{UINT64_MAX - 8, 64, true}});
  rig.host.notify(rig.rng, 0);
  CHECK(rig.host.failures.size() == 1);
}

TEST_CASE("rng: no more a second than is allowed, and nothing is lost") {
  Rig rig({.bytesPerSecond = 100'000, .bytesBurst = 1000});
  const uint64_t at = rig.ram.alloc(4096);
  for (int i = 0; i < 5; i++) {
    rig.ring.add({{at, 4096, true}});
  }
  int atOnce = 0;
  rig.host.run([&] {
    for (int i = 0; i < 5; i++) {
      rig.rng.notify(0);
    }
    while (const auto used = rig.ring.takeUsed()) {
      CHECK(used->length == 1000);
      atOnce++;
    }
  });
  CHECK(atOnce >= 1);
  CHECK(atOnce < 5);  // the others wait for their time
  for (int i = atOnce; i < 5; i++) {
    CHECK(rig.used() == 1000);
  }
}

TEST_CASE("rng: paused it gives nothing; resumed, reset, or restored elsewhere it goes on") {
  Rig rig({.bytesPerSecond = 20'000, .bytesBurst = 1000});
  const uint64_t at = rig.ram.alloc(4096);
  for (int i = 0; i < 8; i++) {
    rig.ring.add({{at, 4096, true}});
  }
  bool paused = false;
  rig.host.run([&] {
    rig.rng.notify(0);
    rig.rng.pause([&] { paused = true; });
    while (rig.ring.takeUsed()) {
    }
  });
  CHECK(paused);
  // The wait for the limit ends in the pause, and comes to nothing.
  rig.host.run([&] { CHECK(rig.rng.save().isNull()); });
  bool timePassed = false;
  rig.host.run([&] { rig.host.loop().after(std::chrono::milliseconds(60), [&] { timePassed = true; }); });
  REQUIRE(rig.host.waitUntil([&] { return timePassed; }));
  CHECK(!rig.ring.hasUsed());
  rig.host.run([&] {
    rig.rng.resume();
    rig.rng.notify(0);
  });
  CHECK(rig.used() == 1000);
  Rng other;
  rig.host.run([&] {
    rig.rng.pause([] {});
    while (rig.ring.takeUsed()) {
    }
    const Value state = rig.rng.save();
    rig.rng.reset();
    other.restore(rig.host, state);
    other.resume();
    other.notify(0);
  });
  CHECK(rig.used() == 4096);
  rig.host.reset(other);
}
