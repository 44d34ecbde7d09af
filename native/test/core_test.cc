#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "devices/bus.h"
#include "devices/power.h"
#include "io/event_loop.h"
#include "memory/guest_memory.h"

using namespace tsvmm;

namespace {

class Recorder : public BusDevice {
 public:
  void read(uint64_t offset, std::span<uint8_t> data) override {
    std::fill(data.begin(), data.end(), static_cast<uint8_t>(offset));
  }
  void write(uint64_t offset, std::span<const uint8_t> data) override {
    writes.emplace_back(offset, data.size());
  }
  std::vector<std::pair<uint64_t, size_t>> writes;
};

uint8_t readByte(const Bus& bus, uint64_t address) {
  uint8_t byte = 0;
  bus.read(address, {&byte, 1});
  return byte;
}

}  // namespace

TEST_CASE("the bus finds the device of an address and nobody elsewhere") {
  Bus bus;
  auto low = std::make_shared<Recorder>();
  auto high = std::make_shared<Recorder>();
  bus.insert(0x2000, 0x100, high);
  bus.insert(0x1000, 0x100, low);
  CHECK(readByte(bus, 0x1004) == 4);
  CHECK(readByte(bus, 0x20ff) == 0xff);
  CHECK(readByte(bus, 0x0fff) == 0xff);
  CHECK(readByte(bus, 0x1100) == 0xff);
  CHECK(readByte(bus, UINT64_MAX) == 0xff);
  const uint8_t bytes[8] = {};
  bus.write(0x10ff, {bytes, 1});
  bus.write(0x10fd, {bytes, 4});  // reaches beyond the range: dropped
  bus.write(0x3000, {bytes, 8});
  CHECK(low->writes == std::vector<std::pair<uint64_t, size_t>>{{0xff, 1}});
  CHECK(high->writes.empty());
}

TEST_CASE("the bus refuses ranges that meet, wrap or are empty") {
  Bus bus;
  bus.insert(0x1000, 0x100, std::make_shared<Recorder>());
  for (const auto& [base, length] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0x1000, 1}, {0xfff, 2}, {0x10ff, 1}, {0x800, 0x1000}, {0x3000, 0}, {UINT64_MAX, 2}}) {
    CHECK_THROWS_AS(bus.insert(base, length, std::make_shared<Recorder>()), std::invalid_argument);
  }
  CHECK_NOTHROW(bus.insert(0x1100, 0x100, std::make_shared<Recorder>()));
}

TEST_CASE("power requests are recognised, all else ignored") {
  std::vector<PowerRequest> requests;
  const PowerHandler handler = [&](PowerRequest request) { requests.push_back(request); };
  AcpiPower acpi(handler);
  I8042Reset i8042(handler);
  Pvpanic pvpanic(handler);
  for (int value = 0; value < 256; value++) {
    const auto byte = static_cast<uint8_t>(value);
    const bool sleeps = (byte & 0x20) != 0 && (byte & 0x1c) == 5 << 2;
    requests.clear();
    acpi.write(0, {&byte, 1});
    CHECK(requests.size() == (sleeps ? 1u : 0u));
    requests.clear();
    acpi.write(2, {&byte, 1});
    CHECK(requests.size() == (byte == 1 ? 1u : 0u));
    requests.clear();
    i8042.write(4, {&byte, 1});
    CHECK(requests.size() == (byte == 0xfe ? 1u : 0u));
    requests.clear();
    i8042.write(0, {&byte, 1});
    CHECK(requests.empty());
    pvpanic.write(0, {&byte, 1});
    CHECK(requests.size() == ((byte & 3) != 0 ? 1u : 0u));
  }
  uint8_t events = 0;
  pvpanic.read(0, {&events, 1});
  CHECK(events == 3);
}

TEST_CASE("guest memory yields nothing outside its regions") {
  GuestMemory memory({{0, 0x10000}, {0x100000, 0x10000}}, {});
  CHECK(memory.slice(0, 0x10000));
  CHECK(memory.slice(0xffff, 1));
  CHECK_FALSE(memory.slice(0xffff, 2));
  CHECK_FALSE(memory.slice(0x10000, 0));
  CHECK_FALSE(memory.slice(0x10000, 1));
  CHECK_FALSE(memory.slice(0xff000, 0x2000));
  CHECK(memory.slice(0x100000, 0x10000));
  CHECK_FALSE(memory.slice(0x100001, 0x10000));
  CHECK_FALSE(memory.slice(0x100000, UINT64_MAX));
  CHECK_FALSE(memory.slice(UINT64_MAX, 1));
  CHECK_FALSE(memory.slice(UINT64_MAX - 3, 8));
  CHECK(memory.write<uint32_t>(0xfffc, 7));
  CHECK(memory.read<uint32_t>(0xfffc) == 7u);
  CHECK_FALSE(memory.read<uint64_t>(0xfffc));
  CHECK_FALSE(memory.write<uint64_t>(0xfffc, 7));
}

TEST_CASE("guest memory refuses regions that cannot be") {
  using Regions = std::vector<GuestMemory::RegionSpec>;
  for (const Regions& regions :
       {Regions{{0, 0}}, Regions{{0, 100}}, Regions{{1, 4096}}, Regions{{0, 8192}, {4096, 4096}},
        Regions{{8192, 4096}, {0, 4096}}, Regions{{UINT64_MAX - 4095, 8192}}}) {
    CHECK_THROWS_AS(GuestMemory(regions, {}), std::invalid_argument);
  }
}

TEST_CASE("guest memory loads files, whole or not at all") {
  GuestMemory memory({{0, 0x10000}}, {.backing = GuestMemory::Backing::kMemfd, .hugePages = false});
  CHECK(memory.memfd() >= 0);
  Fd file(memfd_create("test", 0));
  REQUIRE(write(file.get(), "0123456789", 10) == 10);
  CHECK(memory.load(file.get(), 2, 0x100, 8) == 0);
  CHECK(memory.read<char>(0x100) == '2');
  CHECK(memory.load(file.get(), 5, 0x100, 6) == ENODATA);
  CHECK(memory.load(file.get(), 0, 0xffff, 2) == EFAULT);
  CHECK(memory.load(-1, 0, 0, 1) == EBADF);
}

TEST_CASE("the loop runs what is posted, in order, and watches descriptors") {
  EventLoop loop;
  loop.start();
  std::vector<int> order;
  for (int i = 0; i < 100; i++) {
    loop.post([&order, i] { order.push_back(i); });
  }
  loop.call([&] { order.push_back(100); });
  CHECK(order.size() == 101);
  CHECK(std::is_sorted(order.begin(), order.end()));

  Fd event(eventfd(0, EFD_NONBLOCK));
  std::atomic<int> seen{0};
  loop.call([&] {
    CHECK(loop.inLoop());
    CHECK(loop.add(event.get(), EPOLLIN, [&](uint32_t) {
      eventfd_t value;
      eventfd_read(event.get(), &value);
      loop.remove(event.get());
      seen++;
      seen.notify_all();
    }) == 0);
  });
  eventfd_write(event.get(), 1);
  seen.wait(0);
  CHECK(seen == 1);

  Fd file(memfd_create("test", 0));
  loop.call([&] { CHECK(loop.add(file.get(), EPOLLIN, [](uint32_t) {}) == EPERM); });
  loop.stop();
  loop.post([] { FAIL("ran after the stop"); });
  bool direct = false;
  loop.call([&] { direct = true; });
  CHECK(direct);
}

TEST_CASE("timers come in their order, and not when they were cancelled") {
  EventLoop loop;
  loop.start();
  std::vector<int> order;
  std::atomic<bool> done{false};
  loop.call([&] {
    using std::chrono::milliseconds;
    loop.after(milliseconds(20), [&] {
      order.push_back(2);
      done = true;
      done.notify_all();
    });
    loop.after(milliseconds(1), [&] { order.push_back(1); });
    const auto cancelled = loop.after(milliseconds(5), [&] { order.push_back(9); });
    loop.cancel(cancelled);
    loop.cancel(12345);
  });
  done.wait(false);
  CHECK(order == std::vector<int>{1, 2});
}

TEST_CASE("functions that keep posting themselves leave descriptors and timers their turn") {
  EventLoop loop;
  loop.start();
  Fd event(eventfd(1, EFD_NONBLOCK));
  std::atomic<int> seen{0};
  std::function<void()> again = [&] { loop.post(again); };
  loop.call([&] {
    again();
    loop.after(std::chrono::milliseconds(1), [&] {
      loop.add(event.get(), EPOLLIN, [&](uint32_t) {
        loop.remove(event.get());
        again = [] {};
        seen = 1;
        seen.notify_all();
      });
    });
  });
  seen.wait(0);
  CHECK(seen == 1);
}

TEST_CASE("a handler may remove and close another's descriptor") {
  EventLoop loop;
  Fd first(eventfd(1, EFD_NONBLOCK)), second(eventfd(1, EFD_NONBLOCK));
  std::atomic<int> calls{0};
  const auto handler = [&](Fd& mine, Fd& other) {
    return [&](uint32_t) {
      loop.remove(mine.get());
      loop.remove(other.get());
      other.reset();
      calls++;
      calls.notify_all();
    };
  };
  loop.add(first.get(), EPOLLIN, handler(first, second));
  loop.add(second.get(), EPOLLIN, handler(second, first));
  loop.start();
  calls.wait(0);
  loop.call([] {});
  loop.stop();
  CHECK(calls == 1);
}
