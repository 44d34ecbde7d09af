#include "virtio/mmio_transport.h"

#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <random>

#include "support/mmio_driver.h"
#include "support/ring.h"

using namespace tsvmm;
using namespace tsvmm::virtio;
using tsvmm::test::DriverRing;
using tsvmm::test::GuestRam;

namespace {

/// Returns every chain of queue 0 with a byte written; counts what the transport asks of it.
class EchoDevice : public Device {
 public:
  void activate(Host& host) override {
    host_ = &host;
    activations++;
  }
  void notify(uint16_t index) override {
    host_->queue(index).drain([&](Chain& chain) {
      chain.write("!", 1);
      host_->queue(index).push(chain);
      return true;
    });
    host_->signalQueue(index);
  }
  void reset() override {
    host_ = nullptr;
    resets++;
  }
  void configWritten(uint32_t offset, std::span<const uint8_t> bytes) override {
    configWrites.emplace_back(offset, bytes.size());
    configWritesServed++;
  }

  Host* host_ = nullptr;
  int activations = 0;
  int resets = 0;
  std::vector<std::pair<uint32_t, size_t>> configWrites;
  std::atomic<size_t> configWritesServed{0};
};

struct Fixture : test::MmioDriver {
  Fixture() {
    Description description;
    description.name = "test";
    description.deviceId = 42;
    description.features = 5;
    description.queueSizes = {16, 8};
    description.config = {1, 2, 3, 4, 5, 6, 7, 8};
    description.writableConfigOffset = 4;
    description.writableConfigLength = 2;
    transport = std::make_unique<MmioTransport>(
        description, device, loop, ram.memory, [this] { eventfd_write(interrupt.get(), 1); },
        [this](int) {
          ioeventfds++;
          return 0;
        },
        [this](TransportEvent event, const std::string& message) {
          std::lock_guard lock(mutex);
          events.emplace_back(event, message);
        });
    loop.start();
  }
  ~Fixture() { close(); }

  void start(uint64_t wanted = kFeatureVersion1) { MmioDriver::start({&ring}, wanted); }
  uint64_t interrupts() {
    eventfd_t value = 0;
    return eventfd_read(interrupt.get(), &value) == 0 ? value : 0;
  }

  GuestRam ram;
  DriverRing ring{ram, 16};
  Fd interrupt{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  std::shared_ptr<EchoDevice> device = std::make_shared<EchoDevice>();
  std::mutex mutex;
  std::vector<std::pair<TransportEvent, std::string>> events;
  int ioeventfds = 0;
};

}  // namespace

TEST_CASE("the registers tell what the device is") {
  Fixture f;
  CHECK(f.get(0x000) == 0x74726976);
  CHECK(f.get(0x004) == 2);
  CHECK(f.get(0x008) == 42);
  f.set(0x014, 0);
  CHECK(f.get(0x010) == (5 | 1u << 28 | 1u << 29));
  f.set(0x014, 1);
  CHECK(f.get(0x010) == 1);
  f.set(0x014, 2);
  CHECK(f.get(0x010) == 0);
  CHECK(f.get(0x034) == 16);
  f.set(0x030, 1);
  CHECK(f.get(0x034) == 8);
  f.set(0x030, 2);
  CHECK(f.get(0x034) == 0);
  f.set(0x030, UINT32_MAX);
  CHECK(f.get(0x034) == 0);
  CHECK(f.get(0x0b0) == UINT32_MAX);
  CHECK(f.get(0x0bc) == UINT32_MAX);
}

TEST_CASE("a driver that goes by the text is served") {
  Fixture f;
  f.start();
  CHECK(f.get(0x070) == 15);
  CHECK(f.device->activations == 1);
  const uint64_t buffer = f.ram.alloc(1);
  f.ring.add({{buffer, 1, true}});
  f.set(0x050, 0);
  f.settle();
  while (!f.ring.hasUsed()) {
    f.settle();
  }
  CHECK(f.ring.takeUsed()->length == 1);
  CHECK(f.ram.read(buffer, 1) == "!");
  f.settle();
  CHECK(f.get(0x060) == 1);
  CHECK(f.interrupts() == 1);
  f.set(0x064, 1);
  CHECK(f.get(0x060) == 0);
}

TEST_CASE("features are settled with FEATURES_OK") {
  Fixture f;
  f.set(0x070, 3);
  SUBCASE("what was not offered is refused") {
    f.features(kFeatureVersion1 | 2);
    f.set(0x070, 11);
    CHECK(f.get(0x070) == 3);
  }
  SUBCASE("a legacy driver is refused") {
    f.features(4);
    f.set(0x070, 11);
    CHECK(f.get(0x070) == 3);
  }
  SUBCASE("later changes are ignored") {
    f.features(kFeatureVersion1);
    f.set(0x070, 11);
    CHECK(f.get(0x070) == 11);
    f.features(kFeatureVersion1 | 4);
    f.set(0x070, 15);
    f.settle();
    uint64_t negotiated = 0;
    f.loop.call([&] { negotiated = f.transport->features(); });
    CHECK(negotiated == kFeatureVersion1);
  }
}

TEST_CASE("steps out of order do nothing") {
  Fixture f;
  f.set(0x070, 4);
  CHECK(f.get(0x070) == 0);
  f.set(0x070, 15);
  CHECK((f.get(0x070) & 12) == 0);
  f.setUpQueue(0, f.ring.config());
  f.set(0x030, 0);
  CHECK(f.get(0x044) == 0);
  f.settle();
  CHECK(f.device->activations == 0);
}

TEST_CASE("queues are frozen after DRIVER_OK and while they are ready") {
  Fixture f;
  f.set(0x070, 3);
  f.features(kFeatureVersion1);
  f.set(0x070, 11);
  f.setUpQueue(0, f.ring.config());
  f.set(0x038, 4);       // ready: ignored
  f.address(0x080, 64);  // ready: ignored
  f.set(0x070, 15);
  f.set(0x044, 0);
  CHECK(f.get(0x044) == 1);
  f.settle();
  uint16_t size = 0;
  f.loop.call([&] { size = f.transport->queue(0).size(); });
  CHECK(size == 16);
}

TEST_CASE("a queue that cannot be marks the device") {
  Fixture f;
  f.set(0x070, 3);
  f.features(kFeatureVersion1);
  f.set(0x070, 11);
  QueueConfig config = f.ring.config();
  SUBCASE("outside RAM") { config.used = 1ull << 40; }
  SUBCASE("size above the maximum") { config.size = 32; }
  SUBCASE("size no power of two") { config.size = 12; }
  f.setUpQueue(0, config);
  f.set(0x070, 15);
  f.settle();
  CHECK((f.get(0x070) & 64) != 0);
  CHECK(f.get(0x060) == 2);
  CHECK(f.device->activations == 0);
  f.set(0x070, 0);
  CHECK(f.get(0x070) == 0);
  f.start();
  CHECK(f.get(0x070) == 15);
}

TEST_CASE("a size that does not fit 16 bits does not wrap into one that does") {
  Fixture f;
  f.set(0x070, 3);
  f.features(kFeatureVersion1);
  f.set(0x070, 11);
  f.set(0x030, 0);
  f.set(0x038, 0x10010);
  const QueueConfig config = f.ring.config();
  f.address(0x080, config.descriptors);
  f.address(0x090, config.available);
  f.address(0x0a0, config.used);
  f.set(0x044, 1);
  f.set(0x070, 15);
  f.settle();
  CHECK((f.get(0x070) & 64) != 0);
}

TEST_CASE("a broken ring marks the device, which a reset revives") {
  Fixture f;
  f.start();
  f.ring.setAvailableIndex(100);
  f.set(0x050, 0);
  while ((f.get(0x070) & 64) == 0) {
    f.settle();
  }
  f.settle();
  CHECK(f.device->resets == 1);
  CHECK(f.interrupts() >= 1);
  // Not served any more, and DRIVER_OK alone does not revive it.
  f.set(0x050, 0);
  f.set(0x070, 15);
  f.settle();
  CHECK(f.device->activations == 1);
  f.set(0x070, 0);
  f.ring.~DriverRing();
  new (&f.ring) DriverRing(f.ram, 16);
  f.start();
  CHECK(f.device->activations == 2);
  CHECK(f.device->resets == 1);
}

TEST_CASE("a reset while active quiets the device before the write returns") {
  Fixture f;
  f.start();
  f.set(0x070, 0);
  CHECK(f.device->resets == 1);
  CHECK(f.get(0x070) == 0);
  f.set(0x030, 0);
  CHECK(f.get(0x044) == 0);
  // A notification after it finds nobody.
  f.set(0x050, 0);
  f.settle();
  CHECK(f.device->host_ == nullptr);
}

TEST_CASE("notifications of queues that do not exist are dropped") {
  Fixture f;
  f.start();
  for (const uint32_t index : {2u, 16u, 0xffffu, UINT32_MAX}) {
    f.set(0x050, index);
  }
  f.settle();
  CHECK(f.device->metrics.notifications.load() == 0);
}

TEST_CASE("many notifications make one ioeventfd") {
  Fixture f;
  f.start();
  for (int i = 0; i < 200; i++) {
    f.set(0x050, 0);
  }
  f.settle();
  CHECK(f.ioeventfds == 1);
}

TEST_CASE("the configuration space is bounded and writable only where it says so") {
  Fixture f;
  uint8_t bytes[8];
  f.transport->read(0x100, {bytes, 8});
  CHECK(bytes[7] == 8);
  f.transport->read(0x106, {bytes, 4});
  CHECK(bytes[1] == 8);
  CHECK(bytes[2] == 0);
  f.transport->read(0x1fc, {bytes, 4});
  CHECK(bytes[0] == 0);
  f.start();
  const uint8_t nines[4] = {9, 9, 9, 9};
  f.transport->write(0x100, {nines, 4});
  f.transport->write(0x104, {nines, 4});
  f.transport->write(0x1ff, {nines, 1});
  f.transport->write(0x104, {nines, 2});
  f.settle();
  CHECK(f.device->configWrites == std::vector<std::pair<uint32_t, size_t>>{{4, 2}});
  f.transport->read(0x100, {bytes, 8});
  CHECK(bytes[3] == 4);
  CHECK(bytes[4] == 9);
  CHECK(bytes[6] == 7);

  const uint32_t generation = f.get(0x0fc);
  f.loop.call([&] { f.transport->updateConfig(0, nines); });
  CHECK(f.get(0x0fc) != generation);
  CHECK((f.get(0x060) & 2) != 0);
  f.loop.call([&] { f.transport->updateConfig(6, nines); });
  f.loop.call([&] { f.transport->updateConfig(UINT32_MAX, nines); });
  f.transport->read(0x100, {bytes, 8});
  CHECK(bytes[6] == 7);
}

TEST_CASE("a driver that writes to the configuration space without end waits for the device") {
  Fixture f;
  f.start();
  size_t mostBehind = 0;
  for (size_t written = 1; written <= 5000; written++) {
    f.transport->write(0x104, std::array<uint8_t, 2>{9, 9});
    const size_t served = f.device->configWritesServed;
    mostBehind = std::max(mostBehind, written - std::min(written, served));
  }
  f.settle();
  CHECK(f.device->configWritesServed == 5000);
  CHECK(mostBehind <= 130);
}

TEST_CASE("odd widths and offsets are harmless") {
  Fixture f;
  uint8_t bytes[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  for (uint64_t offset = 0; offset < 0x200; offset++) {
    for (const size_t width : {1, 2, 8}) {
      f.transport->read(offset, {bytes, width});
      f.transport->write(offset, {bytes, width});
    }
  }
  CHECK(f.get(0x070) == 0);
}

TEST_CASE("random register writes never break the machine") {
  std::mt19937 random(3);
  for (int round = 0; round < 200; round++) {
    Fixture f;
    for (int i = 0; i < 200; i++) {
      const uint64_t offset = (random() % 0x80) * 4;
      switch (random() % 4) {
        case 0:
          f.set(0x070, random() % 16);
          break;
        case 1:
          f.features(kFeatureVersion1);
          break;
        case 2:
          f.setUpQueue(random() % 3, f.ring.config());
          break;
        default:
          f.set(offset, random() % 2 == 0 ? random() : random() % 32);
      }
      f.get((random() % 0x80) * 4);
    }
    f.set(0x070, 0);
    CHECK(f.get(0x070) == 0);
  }
}
