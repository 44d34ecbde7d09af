#include <doctest/doctest.h>

#include <cstring>

#include "support/fake_host.h"
#include "support/gated_sink.h"
#include "support/ring.h"
#include "virtio/console/console.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Console;
using tsvmm::virtio::ConsolePortOptions;

namespace {

constexpr uint64_t kFeatures =
    FakeHost::kDefaultFeatures | Console::kFeatureSize | Console::kFeatureMultiport;
// Control messages (virtio 1.2, 5.3.6.2).
constexpr uint16_t kDeviceReady = 0, kAdd = 1, kRemove = 2, kReady = 3, kConsole = 4, kResize = 5, kOpen = 6,
                   kName = 7;

struct Message {
  uint32_t id;
  uint16_t event;
  uint16_t value;
  std::string more;
  bool operator==(const Message&) const = default;
};

/// A console (port 0: 80 by 25) and two plain ports: "log", which takes what is allowed, and "none", which
/// has nobody on the host's side.
struct Rig {
  Rig() : Rig(kFeatures) {}
  explicit Rig(uint64_t features)
      : rings{DriverRing(ram, 16), DriverRing(ram, 16), DriverRing(ram, 16), DriverRing(ram, 16),
              DriverRing(ram, 16), DriverRing(ram, 16), DriverRing(ram, 16), DriverRing(ram, 16)},
        host(ram, pointers(), features),
        console(
            ports(), [this] { changes++; }, std::chrono::milliseconds(0)) {
    host.activate(console);
  }
  ~Rig() { host.reset(console); }

  std::vector<DriverRing*> pointers() {
    std::vector<DriverRing*> list;
    for (DriverRing& ring : rings) {
      list.push_back(&ring);
    }
    return list;
  }
  std::vector<ConsolePortOptions> ports() {
    std::vector<ConsolePortOptions> list(3);
    auto input = std::make_unique<PushSource>();
    auto sink = std::make_unique<GatedSink>();
    auto terminal = std::make_unique<GatedSink>();
    keys = input.get();
    log = sink.get();
    screen = terminal.get();
    list[0].console = true;
    list[0].columns = 80;
    list[0].rows = 25;
    list[0].source = std::move(input);
    list[0].sink = std::move(terminal);
    list[1].name = "log";
    list[1].sink = std::move(sink);
    list[2].name = "none";
    return list;
  }

  /// Buffers for the device's messages.
  void offer(int count, uint32_t size = 64) {
    for (int i = 0; i < count; i++) {
      const uint64_t at = ram.alloc(size);
      buffers[rings[2].add({{at, size, true}})] = at;
    }
    host.notify(console, Console::kControlReceiveQueue);
  }
  void send(uint32_t id, uint16_t event, uint16_t value) {
    uint8_t bytes[8];
    std::memcpy(bytes, &id, 4);
    std::memcpy(bytes + 4, &event, 2);
    std::memcpy(bytes + 6, &value, 2);
    rings[3].add({{ram.place(bytes, 8), 8, false}});
    host.notify(console, Console::kControlTransmitQueue);
    settle();
  }
  void settle() {
    host.run([&] {
      while (rings[3].takeUsed()) {
      }
    });
  }
  std::vector<Message> messages() {
    std::vector<Message> list;
    host.run([&] {
      while (const auto used = rings[2].takeUsed()) {
        const std::string bytes = ram.read(buffers[used->head], used->length);
        REQUIRE(bytes.size() >= 8);
        Message message{0, 0, 0, bytes.substr(8)};
        std::memcpy(&message.id, bytes.data(), 4);
        std::memcpy(&message.event, bytes.data() + 4, 2);
        std::memcpy(&message.value, bytes.data() + 6, 2);
        list.push_back(message);
      }
    });
    return list;
  }
  /// As Linux does it.
  void start() {
    offer(14);
    send(UINT32_MAX, kDeviceReady, 1);
    for (uint32_t port = 0; port < 3; port++) {
      send(port, kReady, 1);
    }
    send(0, kOpen, 1);
    messages();
  }
  std::optional<Used> used(int ring) {
    std::optional<Used> result;
    host.run([&] { result = rings[ring].takeUsed(); });
    return result;
  }
  void write(int ring, const std::string& text) {
    rings[ring].add({{ram.place(text.data(), text.size()), static_cast<uint32_t>(text.size()), false}});
    host.notify(console, static_cast<uint16_t>(ring));
  }

  GuestRam ram;
  DriverRing rings[8];
  FakeHost host;
  PushSource* keys = nullptr;
  GatedSink* screen = nullptr;
  GatedSink* log = nullptr;
  std::atomic<int> changes{0};
  Console console;
  std::map<uint16_t, uint64_t> buffers;
};

}  // namespace

TEST_CASE("console ports: what the driver is told, and when") {
  Rig rig;
  rig.offer(10);
  CHECK(rig.messages().empty());
  rig.send(UINT32_MAX, kDeviceReady, 1);
  CHECK(rig.messages() == std::vector<Message>{{0, kAdd, 1, ""}, {1, kAdd, 1, ""}, {2, kAdd, 1, ""}});
  rig.send(0, kReady, 1);
  CHECK(rig.messages() == std::vector<Message>{{0, kConsole, 1, ""},
                                               {0, kResize, 1, std::string("\x50\0\x19\0", 4)},
                                               {0, kOpen, 1, ""}});
  rig.send(1, kReady, 1);
  CHECK(rig.messages() == std::vector<Message>{{1, kName, 1, "log"}, {1, kOpen, 1, ""}});
  rig.send(2, kReady, 1);
  CHECK(rig.messages() == std::vector<Message>{{2, kName, 1, "none"}});
  // A driver that starts anew is told anew.
  rig.offer(10);
  rig.send(0, kOpen, 1);
  CHECK(rig.console.opens(0) == 1);
  rig.send(7, kDeviceReady, 1);
  CHECK(rig.messages().size() == 3);
  CHECK(rig.console.opens(0) == 2);
  CHECK(rig.console.metrics.errors == 0);
}

TEST_CASE("console ports: bytes of each port, back-pressure of each for itself") {
  Rig rig;
  rig.start();
  rig.write(5, "held back");
  rig.screen->allowed = 100;
  rig.write(1, "shown");
  CHECK(rig.screen->bytes == "shown");
  CHECK(rig.used(1));
  CHECK(!rig.used(5));
  rig.host.run([&] { rig.log->allow(4); });
  CHECK(!rig.used(5));
  rig.host.run([&] { rig.log->allow(100); });
  CHECK(rig.used(5));
  CHECK(rig.log->bytes == "held back");
  rig.write(7, "for nobody");
  CHECK(rig.used(7));

  CHECK(rig.keys->push("typed", 5) == 5);
  const uint64_t at = rig.ram.alloc(64);
  rig.rings[0].add({{at, 64, true}});
  rig.host.notify(rig.console, 0);
  CHECK(rig.used(0)->length == 5);
  CHECK(rig.ram.read(at, 5) == "typed");
}

TEST_CASE("console ports: input waits until the guest has opened the port, and while it has closed it") {
  Rig rig;
  rig.offer(14);
  rig.send(0, kDeviceReady, 1);
  rig.send(0, kReady, 1);
  rig.keys->push("early", 5);
  const uint64_t at = rig.ram.alloc(64);
  rig.rings[0].add({{at, 64, true}});
  rig.host.notify(rig.console, 0);
  CHECK(!rig.used(0));
  rig.send(0, kOpen, 1);
  CHECK(rig.used(0)->length == 5);
  CHECK(rig.console.opens(0) == 1);
  rig.send(0, kOpen, 1);
  CHECK(rig.console.opens(0) == 1);
  CHECK(rig.changes == 1);
  rig.send(0, kOpen, 0);
  CHECK(rig.console.opens(0) == 2);
  rig.keys->push("later", 5);
  rig.rings[0].add({{at, 64, true}});
  rig.host.notify(rig.console, 0);
  CHECK(!rig.used(0));
  // A wait that was begun while it was open gives nothing to a port that is closed.
  rig.send(0, kOpen, 1);
  CHECK(rig.used(0)->length == 5);
  rig.rings[0].add({{at, 64, true}});
  rig.host.notify(rig.console, 0);
  rig.send(0, kOpen, 0);
  rig.keys->push("held", 4);
  rig.host.run([] {});
  CHECK(!rig.used(0));
  rig.host.reset(rig.console);
  CHECK(rig.console.opens(0) == 4);
  CHECK(rig.console.opens(1) == 0);
}

TEST_CASE("console ports: a size that changes, and a host's side that goes") {
  Rig rig;
  rig.start();
  rig.console.resize(0, 132, 43);
  rig.console.resize(1, 1, 1);  // not a terminal: nobody is told
  REQUIRE(rig.host.waitUntil([&] { return rig.rings[2].hasUsed(); }));
  CHECK(rig.messages() == std::vector<Message>{{0, kResize, 1, std::string("\x84\0\x2b\0", 4)}});
  CHECK(rig.host.config == std::vector<uint8_t>{132, 0, 43, 0});
  // The reader of the log goes: the guest is told, and what it writes is thrown away.
  rig.write(5, "pending");
  CHECK(!rig.used(5));
  rig.console.hangUp(1);
  REQUIRE(rig.host.waitUntil([&] { return rig.rings[2].hasUsed(); }));
  CHECK(rig.messages() == std::vector<Message>{{1, kOpen, 0, ""}});
  REQUIRE(rig.host.waitUntil([&] { return rig.rings[5].hasUsed(); }));
  CHECK(rig.used(5));
  rig.write(5, "more");
  CHECK(rig.used(5));
  CHECK(rig.log->bytes.empty());
  // The end of the input is not the end of a port that takes output.
  rig.keys->end();
  rig.rings[0].add({{rig.ram.alloc(8), 8, true}});
  rig.host.notify(rig.console, 0);
  rig.host.run([] {});
  CHECK(rig.messages().empty());
  rig.screen->error = EPIPE;
  rig.write(1, "into the void");
  CHECK(rig.messages() == std::vector<Message>{{0, kOpen, 0, ""}});
  CHECK(rig.host.logs.size() == 1);
}

TEST_CASE("console ports: control messages that are none") {
  Rig rig;
  rig.offer(16);
  const uint64_t at = rig.ram.alloc(64);
  for (const uint32_t length : {0u, 1u, 7u}) {
    rig.rings[3].add({{at, length, false}});
  }
  rig.rings[3].add({{at, 8, true}});
  rig.host.notify(rig.console, Console::kControlTransmitQueue);
  rig.settle();
  CHECK(rig.console.metrics.errors == 4);
  for (const uint32_t port : {3u, 4u, 0x10000u, UINT32_MAX}) {
    rig.send(port, kReady, 1);
    rig.send(port, kOpen, 1);
  }
  for (const uint16_t event : {kAdd, kRemove, kConsole, kResize, kName, uint16_t{8}, uint16_t{0xffff}}) {
    rig.send(0, event, 1);
  }
  rig.send(0, kDeviceReady, 0);
  rig.send(0, kReady, 0);
  CHECK(rig.console.metrics.errors == 4 + 8 + 7 + 2);
  CHECK(rig.host.logs.size() == 1);  // however often
  CHECK(rig.messages().empty());
  CHECK(rig.host.failures.empty());
  // In pieces, and with more behind it.
  const uint8_t ready[12] = {0, 0, 0, 0, 0, 0, 1, 0, 9, 9, 9, 9};
  const uint64_t message = rig.ram.place(ready, 12);
  rig.rings[3].add({{message, 3, false}, {message + 3, 1, false}, {message + 4, 8, false}});
  rig.host.notify(rig.console, Console::kControlTransmitQueue);
  CHECK(rig.messages().size() == 3);
}

TEST_CASE("console ports: a flood of control messages, and a driver that takes none, cost nothing") {
  Rig rig;
  for (int i = 0; i < 1000; i++) {
    rig.send(0, kDeviceReady, 1);
    rig.send(1, kReady, 1);
    rig.send(1, kOpen, i % 2 == 0 ? 1 : 0);
  }
  CHECK(rig.console.opens(1) >= 1000);
  // What is owed is told once.
  rig.offer(10);
  CHECK(rig.messages().size() == 5);
  // Buffers that are too small go back empty, and the message waits for one that is not.
  rig.send(0, kReady, 1);
  rig.messages();
  rig.send(1, kReady, 1);
  rig.messages();
  while (rig.rings[2].freeDescriptors() < 16) {
    rig.send(1, kReady, 1);
    rig.messages();
  }
  rig.send(2, kReady, 1);
  rig.rings[2].add({{rig.ram.alloc(8), 8, true}});
  rig.rings[2].add({{rig.ram.alloc(8), 0, true}});
  rig.rings[2].add({{rig.ram.alloc(8), 8, false}});
  rig.host.notify(rig.console, Console::kControlReceiveQueue);
  for (int i = 0; i < 3; i++) {
    CHECK(rig.used(2)->length == 0);
  }
  rig.offer(1);
  CHECK(rig.messages() == std::vector<Message>{{2, kName, 1, "none"}});
}

TEST_CASE("console ports: broken control queues") {
  for (const int ring : {2, 3, 4, 5}) {
    Rig rig;
    rig.start();
    rig.send(1, kOpen, 1);
    rig.rings[ring].pushAvailable(999);
    rig.host.notify(rig.console, static_cast<uint16_t>(ring));
    for (int i = 0; ring == 2 && i < 4 && rig.host.failures.empty(); i++) {
      rig.send(1, kReady, 1);  // until the buffers before it are used up
    }
    CHECK(rig.host.failures.size() == (ring == 4 ? 0 : 1));  // "log" has no input: its queue is not looked at
  }
}

TEST_CASE("console ports: a driver that knows one port only") {
  Rig rig(FakeHost::kDefaultFeatures | Console::kFeatureSize);
  rig.screen->allowed = 100;
  rig.write(1, "shown");
  CHECK(rig.screen->bytes == "shown");
  rig.write(5, "nothing");
  rig.write(3, "nothing");
  CHECK(!rig.used(5));
  CHECK(!rig.used(3));
  rig.keys->push("typed", 5);
  rig.rings[0].add({{rig.ram.alloc(64), 64, true}});
  rig.host.notify(rig.console, 0);
  CHECK(rig.used(0)->length == 5);
  rig.console.resize(0, 90, 30);
  REQUIRE(rig.host.waitUntil([&] { return rig.host.configUpdates == 1; }));
  rig.console.hangUp(1);
  rig.host.run([] {});
  CHECK(rig.host.failures.empty());
}

TEST_CASE("console ports: paused, nothing moves; resumed, everything goes on") {
  Rig rig;
  rig.start();
  rig.write(5, "pending");
  rig.rings[0].add({{rig.ram.alloc(64), 64, true}});
  rig.host.notify(rig.console, 0);
  bool paused = false;
  rig.host.run([&] {
    rig.console.pause([&] { paused = true; });
    CHECK(paused);
    CHECK(!rig.log->ready);
  });
  rig.log->allowed = 100;
  rig.keys->push("typed", 5);
  rig.console.resize(0, 100, 50);
  rig.host.run([] {});
  CHECK(!rig.used(0));
  CHECK(!rig.used(5));
  CHECK(rig.messages().empty());
  CHECK(rig.host.configUpdates == 0);
  rig.host.run([&] {
    rig.console.resume();
    for (uint16_t i = 0; i < 8; i++) {
      rig.console.notify(i);
    }
  });
  REQUIRE(rig.host.waitUntil([&] { return rig.rings[5].hasUsed(); }));
  CHECK(rig.log->bytes == "pending");
  CHECK(rig.used(0)->length == 5);
  CHECK(rig.messages().size() == 1);
}

TEST_CASE("console ports: saved with output half written and a message owed, and restored") {
  Rig rig;
  rig.start();
  rig.send(1, kOpen, 1);
  rig.log->allowed = 3;
  rig.write(5, "pending");
  CHECK(rig.log->bytes == "pen");
  while (rig.rings[2].freeDescriptors() < 16) {  // until no buffer is left for messages
    rig.send(2, kReady, 1);
    rig.messages();
  }
  rig.send(2, kReady, 1);
  Value state;
  rig.host.run([&] {
    rig.console.pause([] {});
    state = rig.console.save();
    rig.console.reset();
  });
  const auto renew = [&] {
    // A new process: the queues stand where they stood, with nothing in flight.
    for (uint16_t i = 0; i < 8; i++) {
      const auto config = rig.host.queue(i).config();
      const auto at = rig.host.queue(i).state();
      REQUIRE(rig.host.queue(i).configure(rig.ram.memory, config, 64, kFeatures) == nullptr);
      rig.host.queue(i).setState(at);
    }
  };
  PushSource* const oldKeys = rig.keys;
  Console other(rig.ports(), {}, std::chrono::milliseconds(0));
  CHECK(rig.keys != oldKeys);
  rig.log->allowed = 100;
  rig.host.run([&] {
    renew();
    other.restore(rig.host, state);
    CHECK(rig.log->bytes.empty());
    CHECK(other.opens(1) == 1);
    CHECK(other.opens(2) == 0);
    other.resume();
  });
  REQUIRE(rig.host.waitUntil([&] { return rig.rings[5].hasUsed(); }));
  CHECK(rig.log->bytes == "ding");
  CHECK(rig.used(5));
  const uint64_t at = rig.ram.alloc(64);
  rig.buffers[rig.rings[2].add({{at, 64, true}})] = at;
  rig.host.notify(other, Console::kControlReceiveQueue);
  CHECK(rig.messages() == std::vector<Message>{{2, kName, 1, "none"}});
  rig.keys->push("typed", 5);
  rig.rings[0].add({{at, 64, true}});
  rig.host.notify(other, 0);
  CHECK(rig.used(0)->length == 5);
  rig.host.reset(other);

  const auto refuses = [&](const char* field, Value value, const char* words) {
    Value::Record wrong = *state.asRecord();
    Value::List ports = *wrong["ports"].asList();
    Value::Record port = *ports[1].asRecord();
    Value::Record stream = *port["stream"].asRecord();
    if (wrong.contains(field)) {
      wrong[field] = std::move(value);
    } else {
      (port.contains(field) ? port : stream)[field] = std::move(value);
      port["stream"] = stream;
      ports[1] = port;
      wrong["ports"] = ports;
    }
    std::string message;
    rig.host.run([&] {
      renew();
      try {
        other.restore(rig.host, wrong);
      } catch (const ValueError& error) {
        message = error.what();
      }
    });
    CHECK_MESSAGE(message.find(words) != std::string::npos, message);
  };
  refuses("version", uint64_t{9}, "version: expected 1");
  refuses("ports", Value::List{}, "ports: expected 3, got 0");
  refuses("owed", uint64_t{32}, "owed: expected at most 31");
  refuses("guestOpen", "yes", "guestOpen: expected true or false");
  refuses("pendingHead", uint64_t{16}, "pendingHead: no chain of queue 5: 16");
  rig.host.run([&] {
    renew();
    rig.console.activate(rig.host);
  });
}
