#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "support/fake_host.h"
#include "support/gated_sink.h"
#include "support/ring.h"
#include "virtio/console/console.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Console;
using tsvmm::virtio::ConsolePortOptions;

namespace {

std::vector<ConsolePortOptions> onePort(std::unique_ptr<ByteSource> source, std::unique_ptr<ByteSink> sink) {
  std::vector<ConsolePortOptions> ports(1);
  ports[0].source = std::move(source);
  ports[0].sink = std::move(sink);
  return ports;
}

struct Rig {
  explicit Rig(std::unique_ptr<ByteSource> source = nullptr, std::unique_ptr<ByteSink> sink = nullptr,
               std::chrono::milliseconds quiet = {})
      : receive(ram, 16),
        transmit(ram, 16),
        host(ram, {&receive, &transmit}),
        console(onePort(std::move(source), std::move(sink)), {}, quiet) {
    host.config = std::vector<uint8_t>(12);
    host.activate(console);
  }
  ~Rig() { host.reset(console); }
  void send(const std::string& text) {
    transmit.add({{ram.place(text.data(), text.size()), static_cast<uint32_t>(text.size()), false}});
    host.notify(console, Console::kTransmitQueue);
  }
  uint64_t offer(uint32_t size) {
    const uint64_t at = ram.alloc(size);
    receive.add({{at, size, true}});
    host.notify(console, Console::kReceiveQueue);
    return at;
  }
  std::optional<Used> used(DriverRing& ring) {
    std::optional<Used> result;
    host.run([&] { result = ring.takeUsed(); });
    return result;
  }
  Used wait(DriverRing& ring) {
    REQUIRE(host.waitUntil([&] { return ring.hasUsed(); }));
    return *used(ring);
  }
  GuestRam ram;
  DriverRing receive, transmit;
  FakeHost host;
  Console console;
};

}  // namespace

TEST_CASE("console: output stays pending until the sink has taken it") {
  auto owned = std::make_unique<GatedSink>();
  GatedSink& sink = *owned;
  Rig rig(nullptr, std::move(owned));
  sink.allowed = 5;
  rig.send("hello");
  CHECK(rig.wait(rig.transmit).length == 0);
  rig.send(" world");
  rig.send("!\n");
  CHECK(!rig.used(rig.transmit));
  rig.host.run([&] { sink.allow(3); });
  CHECK(sink.bytes == "hello wo");
  CHECK(!rig.used(rig.transmit));
  rig.host.run([&] { sink.allow(4); });
  CHECK(rig.used(rig.transmit));
  CHECK(!rig.used(rig.transmit));
  rig.host.run([&] { sink.allow(100); });
  CHECK(rig.used(rig.transmit));
  CHECK(sink.bytes == "hello world!\n");
  CHECK(rig.console.metrics.bytesWritten == 13);
  CHECK(rig.host.interrupts(1) == 3);
}

TEST_CASE("console: a broken sink does not stop the guest") {
  auto owned = std::make_unique<GatedSink>();
  GatedSink& sink = *owned;
  Rig rig(nullptr, std::move(owned));
  rig.send("kept");
  CHECK(!rig.used(rig.transmit));
  rig.host.run([&] {
    sink.error = EPIPE;
    sink.allow(0);
  });
  CHECK(rig.used(rig.transmit));
  rig.send("more");
  CHECK(rig.used(rig.transmit));
  CHECK(rig.host.logs.size() == 1);
}

TEST_CASE("console: reset while output is pending") {
  auto owned = std::make_unique<GatedSink>();
  GatedSink& sink = *owned;
  Rig rig(nullptr, std::move(owned));
  rig.send("lost with the guest");
  rig.host.reset(rig.console);
  CHECK(!sink.ready);
  DriverRing receive(rig.ram, 16), transmit(rig.ram, 16);
  rig.host.replaceRings({&receive, &transmit});
  rig.host.activate(rig.console);
  sink.allowed = 100;
  transmit.add({{rig.ram.place("new", 3), 3, false}});
  rig.host.notify(rig.console, Console::kTransmitQueue);
  CHECK(sink.bytes == "new");
}

TEST_CASE("console: input reaches the guest as it has room, and no sooner") {
  auto owned = std::make_unique<PushSource>(8);
  PushSource& source = *owned;
  Rig rig(std::move(owned));
  CHECK(source.push("abcdefghijkl", 12) == 8);
  CHECK(source.push("x", 1) == 0);
  uint64_t at = rig.offer(4);
  CHECK(rig.wait(rig.receive).length == 4);
  CHECK(rig.ram.read(at, 4) == "abcd");
  at = rig.offer(64);
  CHECK(rig.wait(rig.receive).length == 4);
  CHECK(rig.ram.read(at, 4) == "efgh");
  // Room first, bytes later.
  at = rig.offer(64);
  CHECK(!rig.used(rig.receive));
  CHECK(source.push("later", 5) == 5);
  CHECK(rig.wait(rig.receive).length == 5);
  CHECK(rig.ram.read(at, 5) == "later");
  at = rig.offer(64);
  source.end();
  rig.host.run([] {});
  CHECK(!rig.used(rig.receive));
  CHECK(source.push("x", 1) == 0);
}

TEST_CASE("console: input waits until the driver has been quiet for a moment, and after a reset again") {
  auto owned = std::make_unique<PushSource>();
  PushSource& source = *owned;
  Rig rig(std::move(owned), nullptr, std::chrono::milliseconds(1));
  CHECK(source.push("first", 5) == 5);
  rig.send("the kernel's log");
  uint64_t at = rig.ram.alloc(64);
  rig.receive.add({{at, 64, true}});
  bool early = false;
  rig.host.run([&] {
    rig.console.notify(Console::kReceiveQueue);
    early = rig.receive.hasUsed();
  });
  CHECK(!early);
  rig.send("more of it");
  CHECK(rig.wait(rig.receive).length == 5);
  CHECK(rig.ram.read(at, 5) == "first");
  at = rig.offer(64);
  CHECK(source.push("then", 4) == 4);
  CHECK(rig.wait(rig.receive).length == 4);
  // The wait of a device that is reset meanwhile comes to nothing.
  rig.host.reset(rig.console);
  DriverRing receive(rig.ram, 16), transmit(rig.ram, 16);
  rig.host.replaceRings({&receive, &transmit});
  rig.host.activate(rig.console);
  rig.host.notify(rig.console, Console::kReceiveQueue);
  rig.host.reset(rig.console);
  rig.host.activate(rig.console);
  CHECK(source.push("again", 5) == 5);
  receive.add({{at, 64, true}});
  rig.host.notify(rig.console, Console::kReceiveQueue);
  CHECK(rig.wait(receive).length == 5);
}

TEST_CASE("console: a pipe for each direction, many bytes") {
  int in[2], out[2];
  REQUIRE(pipe2(in, O_CLOEXEC) == 0);
  REQUIRE(pipe2(out, O_CLOEXEC) == 0);
  const Fd inRead(in[0]), inWrite(in[1]), outRead(out[0]), outWrite(out[1]);
  Rig rig(std::make_unique<FdSource>(in[0]), std::make_unique<FdSink>(out[1]));
  std::string sent, echoed;
  const uint64_t buffer = rig.ram.alloc(4096);
  for (int i = 0; i < 50; i++) {
    const std::string text(3000, static_cast<char>('a' + i % 26));
    sent += text;
    REQUIRE(write(in[1], text.data(), text.size()) == 3000);
    size_t got = 0;
    while (got < 3000) {
      rig.receive.add({{buffer, 4096, true}});
      rig.host.notify(rig.console, Console::kReceiveQueue);
      const uint32_t length = rig.wait(rig.receive).length;
      got += length;
      rig.send(rig.ram.read(buffer, length));
      std::string back(length, '\0');
      size_t read = 0;
      while (read < length) {
        const ssize_t count = ::read(out[0], back.data() + read, length - read);
        REQUIRE(count > 0);
        read += static_cast<size_t>(count);
      }
      echoed += back;
      rig.wait(rig.transmit);
    }
  }
  CHECK(echoed == sent);
  CHECK((fcntl(in[0], F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(out[1], F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("console: resizing, before and while active") {
  Rig rig;
  CHECK(rig.host.configUpdates == 0);
  rig.console.resize(0, 132, 43);
  REQUIRE(rig.host.waitUntil([&] { return rig.host.configUpdates == 1; }));
  CHECK(rig.host.config[0] == 132);
  CHECK(rig.host.config[2] == 43);
  rig.host.reset(rig.console);
  rig.console.resize(0, 0x1234, 0x5678);
  rig.host.activate(rig.console);
  CHECK(rig.host.config[0] == 0x34);
  CHECK(rig.host.config[1] == 0x12);
  CHECK(rig.host.config[3] == 0x56);
  CHECK(rig.host.configUpdates == 2);
}

TEST_CASE("console: chains with nothing in them, no sink, broken queues") {
  Rig rig(std::make_unique<PushSource>());
  const uint64_t at = rig.ram.alloc(16);
  rig.transmit.add({{at, 0, false}});
  rig.transmit.add({{at, 16, true}});
  rig.transmit.add({{at, 16, false}});
  rig.host.notify(rig.console, Console::kTransmitQueue);
  for (int i = 0; i < 3; i++) {
    CHECK(rig.used(rig.transmit)->length == 0);
  }
  rig.receive.add({{at, 16, false}});
  rig.host.notify(rig.console, Console::kReceiveQueue);
  CHECK(rig.used(rig.receive)->length == 0);
  rig.transmit.pushAvailable(999);
  rig.host.notify(rig.console, Console::kTransmitQueue);
  CHECK(rig.host.failures.size() == 1);
}
