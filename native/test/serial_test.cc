#include "devices/serial.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <string>
#include <thread>

#include "devices/panic_detector.h"
#include "devices/uart16550.h"

using namespace tsvmm;

namespace {

constexpr uint8_t kLoop = 0x10;

struct Uart {
  std::string out;
  Uart16550 port{[this](uint8_t byte) { out += static_cast<char>(byte); }};
  uint8_t in(uint8_t offset) { return port.read(offset); }
  void set(uint8_t offset, uint8_t value) { port.write(offset, value); }
};

/// Collects output; takes only what the test allows.
struct Collected {
  std::mutex mutex;
  std::condition_variable changed;
  std::string bytes;
  size_t allowed = SIZE_MAX;
  std::atomic<int> calls{0};
  int error = 0;
  EventLoop* loop = nullptr;
  std::function<void()> ready;

  void allow(size_t count) {
    std::function<void()> callback;
    EventLoop* on;
    {
      std::lock_guard lock(mutex);
      allowed = count;
      callback = std::exchange(ready, {});
      on = loop;
    }
    if (callback) {
      on->call(callback);
    }
  }
  bool waitFor(const std::string& expected) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(10), [&] { return bytes == expected; });
  }
};

class CollectingSink final : public ByteSink {
 public:
  explicit CollectingSink(std::shared_ptr<Collected> collected) : collected_(std::move(collected)) {}
  ssize_t writev(const iovec* parts, int) override {
    std::lock_guard lock(collected_->mutex);
    if (collected_->error != 0) {
      return -collected_->error;
    }
    const size_t step = std::min(collected_->allowed, parts[0].iov_len);
    if (step == 0) {
      return -EAGAIN;
    }
    if (collected_->allowed != SIZE_MAX) {
      collected_->allowed -= step;
    }
    collected_->bytes.append(static_cast<const char*>(parts[0].iov_base), step);
    collected_->calls++;
    collected_->changed.notify_all();
    return static_cast<ssize_t>(step);
  }
  void awaitWritable(EventLoop& loop, std::function<void()> ready) override {
    std::lock_guard lock(collected_->mutex);
    collected_->loop = &loop;
    collected_->ready = std::move(ready);
  }
  void cancel() override {
    std::lock_guard lock(collected_->mutex);
    collected_->ready = {};
  }

 private:
  std::shared_ptr<Collected> collected_;
};

struct Rig {
  explicit Rig(std::unique_ptr<ByteSource> source = nullptr, bool polled = false) {
    loop.start();
    Serial::Options options;
    options.sink = std::make_unique<CollectingSink>(collected);
    options.source = std::move(source);
    options.raiseInterrupt = [this] {
      std::lock_guard lock(mutex);
      interrupts++;
      changed.notify_all();
    };
    options.panicked = [this](const std::string& text) { panic = text; };
    options.polledInput = polled;
    serial = std::make_unique<Serial>(loop, std::move(options));
    loop.call([this] { serial->start(); });
  }
  void print(const std::string& text) {
    for (const char byte : text) {
      serial->write(Uart16550::kData, static_cast<uint8_t>(byte));
    }
  }
  bool waitInterrupts(int count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(10), [&] { return interrupts >= count; });
  }
  std::shared_ptr<Collected> collected = std::make_shared<Collected>();
  std::mutex mutex;
  std::condition_variable changed;
  int interrupts = 0;
  std::string panic;
  EventLoop loop;
  std::unique_ptr<Serial> serial;
};

}  // namespace

TEST_CASE("uart: how Linux finds a 16550A") {
  Uart uart;
  // 8250_port.c, autoconfig(): the interrupt enable register has four bits.
  uart.set(1, 0);
  CHECK(uart.in(1) == 0);
  uart.set(1, 0xff);
  CHECK(uart.in(1) == 0x0f);
  uart.set(1, 0);
  // The loopback test: RTS and OUT2 come back as CTS and DCD.
  uart.set(4, kLoop | 0x0a);
  CHECK((uart.in(6) & 0xf0) == 0x90);
  uart.set(4, kLoop | 0x05);
  CHECK((uart.in(6) & 0xf0) == 0x60);
  uart.set(4, 0);
  CHECK((uart.in(6) & 0xf0) == 0xb0);
  // A 16550A's FIFOs, not a 16750's 64 bytes.
  CHECK((uart.in(2) >> 6) == 0);
  uart.set(2, 0x01);
  CHECK((uart.in(2) >> 6) == 3);
  uart.set(3, 0x80);
  uart.set(2, 0x21);
  CHECK((uart.in(2) >> 5) == 6);
  uart.set(2, 0);
  CHECK((uart.in(2) >> 6) == 0);
  // The divisor.
  CHECK(uart.in(0) == 12);
  uart.set(0, 0x34);
  uart.set(1, 0x12);
  CHECK(uart.in(0) == 0x34);
  CHECK(uart.in(1) == 0x12);
  uart.set(3, 0x03);
  CHECK(uart.in(1) == 0);
  CHECK(uart.in(3) == 0x03);
  uart.set(7, 0xa5);
  CHECK(uart.in(7) == 0xa5);
  CHECK(uart.in(8) == 0xff);
  uart.set(8, 1);
  CHECK(uart.out.empty());
}

TEST_CASE("uart: the transmitter is always empty, and its interrupt is raised each time it is enabled") {
  Uart uart;
  CHECK(uart.in(5) == 0x60);
  uart.set(0, 'A');
  CHECK(uart.out == "A");
  CHECK(uart.in(5) == 0x60);
  CHECK(!uart.port.interruptPending());
  for (int i = 0; i < 2; i++) {
    uart.set(1, 0x02);
    CHECK(uart.port.interruptPending());
    CHECK(uart.in(2) == 0x02);
    CHECK(uart.in(2) == 0x01);
    CHECK(!uart.port.interruptPending());
    uart.set(1, 0);
  }
  uart.set(1, 0x02);
  uart.in(2);
  uart.set(0, 'B');
  CHECK(uart.in(2) == 0x02);
}

TEST_CASE("uart: receiving, trigger levels, overrun") {
  Uart uart;
  CHECK(uart.port.receiveRoom() == 1);
  uart.port.receive('a');
  uart.port.receive('b');
  CHECK(uart.in(5) == (0x61 | 0x02));
  CHECK(uart.in(5) == 0x61);
  CHECK(uart.in(0) == 'a');
  CHECK(uart.in(0) == 0);
  CHECK(uart.in(5) == 0x60);

  uart.set(2, 0x81);  // FIFO, trigger at 8
  uart.set(1, 0x05);
  CHECK(uart.port.receiveRoom() == 16);
  for (int i = 0; i < 7; i++) {
    uart.port.receive(static_cast<uint8_t>('0' + i));
  }
  CHECK(uart.in(2) == (0xc0 | 0x0c));
  uart.port.receive('7');
  CHECK(uart.in(2) == (0xc0 | 0x04));
  for (int i = 8; i < 17; i++) {
    uart.port.receive(static_cast<uint8_t>('0' + i));
  }
  CHECK(uart.in(2) == (0xc0 | 0x06));
  CHECK((uart.in(5) & 0x02) != 0);
  CHECK(uart.in(2) == (0xc0 | 0x04));
  for (int i = 0; i < 16; i++) {
    CHECK(uart.in(0) == '0' + i);
  }
  CHECK(!uart.port.interruptPending());
  uart.port.receive('x');
  uart.set(2, 0x03);  // clear the receiver
  CHECK(uart.in(5) == 0x60);
}

TEST_CASE("uart: what is looped back does not leave") {
  Uart uart;
  uart.set(2, 0x01);
  uart.set(4, kLoop);
  CHECK(uart.port.receiveRoom() == 0);
  for (int i = 0; i < 17; i++) {
    uart.set(0, static_cast<uint8_t>(i));
  }
  CHECK(uart.out.empty());
  CHECK(uart.in(5) == 0x63);
  for (int i = 0; i < 16; i++) {
    CHECK(uart.in(0) == i);
  }
  uart.set(4, 0);
  uart.in(6);
  uart.set(1, 0x08);
  CHECK(!uart.port.interruptPending());
  uart.set(4, kLoop);
  CHECK(uart.in(2) == 0xc0);
  CHECK((uart.in(6) & 0x0f) == 0x0b);
  CHECK(!uart.port.interruptPending());
}

TEST_CASE("serial: output is complete, in order, and not a system call a byte") {
  Rig rig;
  std::string text;
  for (int i = 0; i < 2000; i++) {
    text += "line " + std::to_string(i) + "\r\n";
  }
  rig.print(text);
  CHECK(rig.serial->flush(std::chrono::seconds(10)));
  CHECK(rig.collected->bytes == text);
  CHECK(rig.collected->calls < 2000);
  // Nobody has to ask for it.
  rig.print("and more");
  CHECK(rig.collected->waitFor(text + "and more"));
}

TEST_CASE("serial: a vCPU waits for a sink that does not take, until it does") {
  Rig rig;
  rig.collected->allow(0);
  const std::string text(2 * Serial::kOutputLimit + 1000, 'x');
  std::atomic<size_t> written{0};
  std::thread vcpu([&] {
    for (const char byte : text) {
      rig.serial->write(0, static_cast<uint8_t>(byte));
      written++;
    }
  });
  // It gets to the limit and the byte with which it waits, and no further.
  while (written < Serial::kOutputLimit) {
    std::this_thread::yield();
  }
  CHECK(!rig.serial->flush(std::chrono::milliseconds(1)));
  CHECK(written == Serial::kOutputLimit);
  rig.collected->allow(SIZE_MAX);
  vcpu.join();
  CHECK(rig.serial->flush(std::chrono::seconds(10)));
  CHECK(rig.collected->bytes == text);
}

TEST_CASE("serial: close and pause end the waits") {
  for (const bool close : {true, false}) {
    Rig rig;
    rig.collected->allow(0);
    std::promise<void> atLimit;
    std::thread vcpu([&] {
      for (size_t i = 0; i < Serial::kOutputLimit; i++) {
        rig.serial->write(0, 'x');
      }
      atLimit.set_value();
      rig.serial->write(0, 'y');
    });
    atLimit.get_future().wait();
    if (close) {
      rig.serial->close();
    } else {
      rig.serial->setWaiting(false);
    }
    vcpu.join();
    // A guest that goes on all the same finds an end of memory, not of the host's.
    for (size_t i = 0; i < 2 * Serial::kOutputLimit; i++) {
      rig.serial->write(0, 'z');
    }
    rig.collected->allow(SIZE_MAX);
    CHECK(rig.serial->flush(std::chrono::seconds(10)));
    CHECK(rig.collected->bytes.size() == 2 * Serial::kOutputLimit);
    CHECK(rig.collected->bytes[Serial::kOutputLimit] == 'y');
  }
}

TEST_CASE("serial: a broken sink throws output away") {
  Rig rig;
  rig.collected->error = EPIPE;
  rig.print(std::string(3 * Serial::kOutputLimit, 'x'));
  CHECK(rig.serial->flush(std::chrono::seconds(10)));
}

TEST_CASE("serial: told when all is written, at once if nothing waits") {
  Rig rig;
  std::promise<void> nothing, all;
  rig.loop.call([&] { rig.serial->whenFlushed([&] { nothing.set_value(); }); });
  nothing.get_future().wait();
  rig.collected->allow(3);
  rig.print("abcdef");
  auto flushed = all.get_future();
  rig.loop.call([&] { rig.serial->whenFlushed([&] { all.set_value(); }); });
  CHECK(flushed.wait_for(std::chrono::seconds(0)) == std::future_status::timeout);
  rig.collected->allow(SIZE_MAX);
  flushed.wait();
  CHECK(rig.collected->bytes == "abcdef");
}

TEST_CASE("serial: input waits for a driver, is bounded, and all arrives") {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const Fd read(ends[0]);
  Fd write(ends[1]);
  std::string text;
  for (int i = 0; i < 3000; i++) {
    text += std::to_string(i) + ",";
  }
  REQUIRE(::write(write.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  write.reset();
  Rig rig(std::make_unique<FdSource>(read.get()));
  rig.loop.call([] {});
  CHECK(rig.serial->read(5) == 0x60);
  rig.serial->write(2, 0x07);  // the driver starts with cleared FIFOs
  CHECK(rig.interrupts == 0);
  rig.serial->write(1, 0x01);
  CHECK(rig.interrupts == 1);
  std::string got;
  int seen = 0;
  while (got.size() < text.size()) {
    REQUIRE(rig.waitInterrupts(seen + 1));
    {
      std::lock_guard lock(rig.mutex);
      seen = rig.interrupts;
    }
    while ((rig.serial->read(5) & 1) != 0) {
      got += static_cast<char>(rig.serial->read(0));
    }
  }
  CHECK(got == text);
}

TEST_CASE("serial: a driver that stops and starts loses no input") {
  auto owned = std::make_unique<PushSource>();
  PushSource& source = *owned;
  Rig rig(std::move(owned));
  std::string text(100, '?');
  for (size_t i = 0; i < text.size(); i++) {
    text[i] = static_cast<char>(' ' + i % 90);
  }
  source.push(text.data(), text.size());
  rig.loop.call([] {});
  rig.loop.call([] {});
  std::string got;
  for (int round = 0; round < 5; round++) {
    // As Linux does: the FIFO is cleared in steps, with the interrupt off, and once more with it on.
    for (const uint8_t value : {0x01, 0x07, 0x00}) {
      rig.serial->write(2, value);
    }
    CHECK((rig.serial->read(5) & 1) == 0);
    rig.serial->write(1, 0x01);
    rig.serial->write(2, 0x81);
    for (int i = 0; i < 20; i++) {
      REQUIRE((rig.serial->read(5) & 1) != 0);
      got += static_cast<char>(rig.serial->read(0));
    }
    rig.serial->write(1, 0x00);
  }
  CHECK(got == text);
}

TEST_CASE("serial: a FIFO that is cleared while much is waiting") {
  auto owned = std::make_unique<PushSource>();
  PushSource& source = *owned;
  Rig rig(std::move(owned));
  std::string text(Serial::kInputLimit * 4, '?');
  for (size_t i = 0; i < text.size(); i++) {
    text[i] = static_cast<char>(' ' + i % 90);
  }
  rig.serial->write(2, 0x01);
  rig.serial->write(1, 0x01);
  const size_t first = Serial::kInputLimit + 10;  // FIFO full, and all but the limit behind it
  source.push(text.data(), first);
  rig.loop.call([] {});
  rig.loop.call([] {});
  rig.serial->write(1, 0x00);
  rig.serial->write(2, 0x03);
  source.push(text.data() + first, text.size() - first);
  rig.loop.call([] {});
  rig.serial->write(1, 0x01);
  std::string got;
  while (got.size() < text.size()) {
    rig.loop.call([] {});
    while ((rig.serial->read(5) & 1) != 0) {
      got += static_cast<char>(rig.serial->read(0));
    }
  }
  CHECK(got == text);
}

TEST_CASE("serial: a guest that polls gets input on request; output echoes") {
  auto owned = std::make_unique<PushSource>();
  PushSource& source = *owned;
  Rig rig(std::move(owned), true);
  source.push("polled", 6);
  std::string got;
  while (got.size() < 6) {
    if ((rig.serial->read(5) & 1) != 0) {
      got += static_cast<char>(rig.serial->read(0));
    } else {
      std::this_thread::yield();
    }
  }
  CHECK(got == "polled");
  CHECK(rig.interrupts == 0);
}

TEST_CASE("serial: many vCPUs at once, and an end in the middle") {
  Rig rig;
  std::vector<std::thread> vcpus;
  std::atomic<bool> stop{false};
  for (int i = 0; i < 4; i++) {
    vcpus.emplace_back([&, i] {
      uint8_t value = static_cast<uint8_t>(i);
      while (!stop) {
        rig.serial->write(value % 8, value);
        value = static_cast<uint8_t>(value * 5 + rig.serial->read((value >> 3) % 8) + 1);
      }
    });
  }
  while (rig.collected->calls < 5) {
    rig.serial->write(3, 3);
    rig.serial->write(4, 0);
    rig.serial->write(0, 'x');
    std::this_thread::yield();
  }
  stop = true;
  for (std::thread& vcpu : vcpus) {
    vcpu.join();
  }
  rig.serial.reset();
}

TEST_CASE("serial: sees the line of a panic") {
  Rig rig;
  rig.print("[    1.0] Kernel panic");
  CHECK(!rig.serial->sawPanic());
  rig.print(" - not syncing: VFS: Unable to mount root fs\r\n");
  CHECK(rig.serial->sawPanic());
  CHECK(rig.serial->panicText() == "Kernel panic - not syncing: VFS: Unable to mount root fs");
  CHECK(rig.panic == rig.serial->panicText());
}

TEST_CASE("panic detector: starts anew at each K, is bounded and harmless to print") {
  PanicDetector detector;
  int found = 0;
  for (const char byte :
       std::string("KKernel Kernel panic - not syncinG Kernel panic - not syncKernel panic - not "
                   "syncing: \x1b[2J\x80 x\nKernel panic - not syncing: again\n")) {
    found += detector.feed(static_cast<uint8_t>(byte)) ? 1 : 0;
  }
  CHECK(found == 1);
  CHECK(detector.text() == "Kernel panic - not syncing: ?[2J? x");

  PanicDetector bounded;
  found = 0;
  for (const char byte : "Kernel panic - not syncing" + std::string(10000, 'a')) {
    found += bounded.feed(static_cast<uint8_t>(byte)) ? 1 : 0;
  }
  CHECK(found == 1);
  CHECK(bounded.text().size() == PanicDetector::kMaxText);
}
