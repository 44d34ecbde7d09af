#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "support/mmio_driver.h"
#include "support/ring.h"
#include "virtio/mmio_transport.h"

using namespace tsvmm;
using namespace tsvmm::virtio;
using tsvmm::test::DriverRing;
using tsvmm::test::GuestRam;

namespace {

/// Echoes a byte into each chain; keeps the chains of queue 1; holds pause() back where it is told to.
class Keeper : public Device {
 public:
  void activate(Host& host) override { host_ = &host; }
  void notify(uint16_t index) override {
    notified++;
    Chain chain;
    while (host_->queue(index).pop(chain) == Queue::Pop::kChain) {
      if (index == 1) {
        kept_.push_back(chain);
      } else {
        chain.write("!", 1);
        host_->queue(index).push(chain);
      }
    }
    host_->signalQueue(index);
  }
  void pause(std::function<void()> paused) override {
    pauses++;
    if (slow) {
      waiting = std::move(paused);
    } else {
      paused();
    }
  }
  void resume() override { resumes++; }
  Value save() override {
    Value::List heads;
    for (const Chain& chain : kept_) {
      heads.push_back(chain.head());
    }
    return Value::Record{{"version", 1u}, {"kept", heads}};
  }
  void restore(Host& host, const Value& state) override {
    host_ = &host;
    for (const Value& head : state.list("kept")) {
      Chain chain;
      if (!head.asInteger() || !host.queue(1).reopen(static_cast<uint16_t>(*head.asInteger()), chain)) {
        throw ValueError("kept: a head that is none");
      }
      kept_.push_back(chain);
    }
  }
  void reset() override {
    resets++;
    kept_.clear();
    host_ = nullptr;
  }
  /// Gives back the first chain that was kept.
  void release() {
    kept_.front().write("kept", 4);
    host_->queue(1).push(kept_.front());
    kept_.erase(kept_.begin());
    host_->signalQueue(1);
  }

  bool slow = false;
  std::function<void()> waiting;
  int pauses = 0, resumes = 0, notified = 0, resets = 0;

 private:
  Host* host_ = nullptr;
  std::vector<Chain> kept_;
};

/// A transport over memory that may outlive it.
struct Side : test::MmioDriver {
  explicit Side(GuestRam& ram, uint32_t deviceId = 42) : ram(ram) {
    Description description;
    description.name = "test";
    description.deviceId = deviceId;
    description.queueSizes = {16, 8};
    description.config = {1, 2, 3, 4};
    transport = std::make_unique<MmioTransport>(
        description, device, loop, ram.memory, [this] { eventfd_write(interrupt.get(), 1); },
        [](int) { return 0; }, [](TransportEvent, const std::string&) {});
    loop.start();
  }
  ~Side() { close(); }
  void notify() {
    set(0x050, 0);
    settle();
  }
  template <typename F>
  void run(F&& function) {
    std::exception_ptr error;
    loop.call([&] {
      try {
        function();
      } catch (...) {
        error = std::current_exception();
      }
    });
    if (error) {
      std::rethrow_exception(error);
    }
  }
  bool pause() {
    bool done = false;
    run([&] { transport->pause([&] { done = true; }); });
    return done;
  }
  uint64_t interrupts() {
    eventfd_t value = 0;
    return eventfd_read(interrupt.get(), &value) == 0 ? value : 0;
  }

  GuestRam& ram;
  Fd interrupt{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  std::shared_ptr<Keeper> device = std::make_shared<Keeper>();
};

struct Fixture {
  GuestRam ram;
  DriverRing ring{ram, 16}, second{ram, 8};
  Side side{ram};
  void start() { side.start({&ring, &second}); }
  uint64_t offer(DriverRing& to) {
    const uint64_t at = ram.alloc(16);
    to.add({{at, 16, true}});
    return at;
  }
};

}  // namespace

TEST_CASE("a paused device serves nothing; what came meanwhile is served after resume") {
  Fixture f;
  f.start();
  CHECK(f.side.pause());
  f.offer(f.ring);
  f.side.notify();
  CHECK_FALSE(f.ring.hasUsed());
  CHECK(f.side.device->notified == 0);
  f.side.run([&] { f.side.transport->resume(); });
  f.side.settle();
  CHECK(f.ring.takeUsed().has_value());
  CHECK(f.side.device->resumes == 1);
}

TEST_CASE("pause waits for the device, and a reset by the driver ends the wait") {
  Fixture f;
  f.side.device->slow = true;
  f.start();
  bool done = false;
  f.side.run([&] { f.side.transport->pause([&] { done = true; }); });
  CHECK_FALSE(done);
  SUBCASE("the device comes to rest") {
    f.side.run([&] { f.side.device->waiting(); });
    CHECK(done);
  }
  SUBCASE("the driver resets it") {
    f.side.set(0x070, 0);
    CHECK(done);
    f.side.run([&] { f.side.device->waiting(); });
  }
  SUBCASE("resume comes first") {
    f.side.run([&] {
      f.side.transport->resume();
      f.side.device->waiting();
    });
    CHECK_FALSE(done);
  }
}

TEST_CASE("a device that the driver activates while it is paused does not serve before resume") {
  Fixture f;
  CHECK(f.side.pause());
  f.start();
  f.offer(f.ring);
  f.side.notify();
  CHECK_FALSE(f.ring.hasUsed());
  CHECK(f.side.device->pauses == 1);
  f.side.run([&] { f.side.transport->resume(); });
  f.side.settle();
  CHECK(f.ring.hasUsed());
}

TEST_CASE("I/O goes on in another transport from what was saved") {
  Fixture f;
  f.start();
  const uint64_t kept = f.offer(f.second);
  for (int i = 0; i < 20; i++) {
    f.offer(f.ring);
    f.side.notify();
    REQUIRE(f.ring.takeUsed().has_value());
  }
  REQUIRE(f.side.pause());
  const uint64_t late = f.offer(f.ring);  // available and not served when it is saved
  Value state;
  f.side.run([&] {
    state = f.side.transport->save();
    f.side.transport->shutDown();
  });

  Side other(f.ram);
  other.run([&] { other.transport->restore(state); });
  CHECK(other.get(0x070) == 15);
  CHECK(other.get(0x060) == 1);
  CHECK_FALSE(f.ring.hasUsed());
  other.interrupts();
  other.run([&] { other.transport->resume(); });
  other.settle();
  CHECK(other.interrupts() > 0);  // also the one that the driver had not acknowledged
  REQUIRE(f.ring.takeUsed().has_value());
  CHECK(f.ram.read(late, 1) == "!");
  other.run([&] { other.device->release(); });
  CHECK(f.second.takeUsed()->length == 4);
  CHECK(f.ram.read(kept, 4) == "kept");
}

TEST_CASE("a state that was saved before the driver came, or after it failed, is taken as it is") {
  Fixture f;
  Value fresh;
  REQUIRE(f.side.pause());
  f.side.run([&] { fresh = f.side.transport->save(); });
  Side other(f.ram);
  other.run([&] { other.transport->restore(fresh); });
  CHECK(other.get(0x070) == 0);
  other.run([&] { other.transport->resume(); });
  other.start({&f.ring, &f.second});
  f.offer(f.ring);
  other.notify();
  CHECK(f.ring.hasUsed());

  other.run([&] { other.transport->fail("broken"); });
  REQUIRE(other.pause());
  Value failed;
  other.run([&] { failed = other.transport->save(); });
  Side third(f.ram);
  third.run([&] { third.transport->restore(failed); });
  CHECK((third.get(0x070) & 64) != 0);
}

TEST_CASE("a wrong state is refused by name and leaves the device as after a reset") {
  Fixture f;
  f.start();
  f.offer(f.second);
  f.side.notify();
  REQUIRE(f.side.pause());
  Value state;
  f.side.run([&] { state = f.side.transport->save(); });
  Value::Record record = *state.asRecord();
  std::string field;
  SUBCASE("version") {
    field = "version";
    record["version"] = 2u;
  }
  SUBCASE("another device") {
    field = "deviceId";
    record["deviceId"] = 2u;
  }
  SUBCASE("absent") {
    field = "queueSelect";
    record.erase("queueSelect");
  }
  SUBCASE("features that are not offered") {
    field = "driverFeatures";
    record["driverFeatures"] = UINT64_MAX;
  }
  SUBCASE("a ring outside RAM") {
    field = "queues";
    Value::List queues = *record["queues"].asList();
    Value::Record queue = *queues[0].asRecord();
    queue["used"] = uint64_t{1} << 60;
    queues[0] = queue;
    record["queues"] = queues;
  }
  SUBCASE("a queue of another size") {
    field = "queues";
    Value::List queues = *record["queues"].asList();
    queues.pop_back();
    record["queues"] = queues;
  }
  SUBCASE("the device's own") {
    field = "kept";
    record["device"] = Value::Record{{"kept", Value::List{Value(9u)}}};
  }
  Side other(f.ram);
  std::string message;
  try {
    other.run([&] { other.transport->restore(record); });
  } catch (const ValueError& error) {
    message = error.what();
  }
  CHECK(message.starts_with(field + ":"));
  CHECK(other.get(0x070) == 0);
  other.run([&] { other.transport->resume(); });
  DriverRing again(f.ram, 16), secondAgain(f.ram, 8);
  other.start({&again, &secondAgain});
  f.offer(again);
  other.notify();
  CHECK(again.hasUsed());
}

TEST_CASE("a removed device is told as failed, then is none, whatever the driver does") {
  Fixture f;
  f.start();
  f.side.interrupts();
  f.side.run([&] { f.side.transport->remove(); });
  CHECK(f.side.device->resets == 1);
  CHECK((f.side.get(0x070) & 64) != 0);
  CHECK(f.side.interrupts() == 1);
  CHECK(f.side.get(0x008) == 0);
  f.side.set(0x070, 0);
  f.start();
  f.offer(f.ring);
  f.side.notify();
  CHECK_FALSE(f.ring.hasUsed());
}
