#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/panic_detector.h"
#include "devices/uart16550.h"
#include "io/byte_stream.h"
#include "io/event_loop.h"

namespace tsvmm {

/// A 16550A serial port between vCPU threads, which use its registers, and the I/O thread, which moves bytes
/// between it and the host. Both directions are bounded and lose nothing: a source is read as the guest takes
/// its bytes, and a vCPU that writes faster than the sink takes waits.
class Serial {
 public:
  static constexpr size_t kOutputLimit = 64 << 10;
  static constexpr size_t kInputLimit = 4 << 10;

  struct Options {
    std::unique_ptr<ByteSink> sink;      ///< null: output is thrown away
    std::unique_ptr<ByteSource> source;  ///< null: no input ever
    /// The interrupt line has risen. From any thread, no lock held.
    std::function<void()> raiseInterrupt;
    /// A line "Kernel panic - not syncing" is complete. On a vCPU thread, no lock held. May be empty.
    std::function<void(const std::string& text)> panicked;
    /// Give input also to a guest that has not enabled the receive interrupt. Otherwise the line is silent
    /// while no driver listens: a driver that starts or stops clears the FIFO, and what was typed ahead with
    /// it.
    bool polledInput = false;
  };

  /// `loop` must outlive the port.
  Serial(EventLoop& loop, Options options);
  ~Serial();
  Serial(const Serial&) = delete;
  Serial& operator=(const Serial&) = delete;

  /// Begins to read the source. On the loop, or before it runs.
  void start();

  /// A register access by a vCPU; `offset` 0 to 7. write() may wait for the sink, until close() or
  /// interruptWaits().
  uint8_t read(uint8_t offset);
  void write(uint8_t offset, uint8_t value);

  /// Whether write() waits for the sink (it does at first). Off while vCPUs are being paused or stopped: they
  /// must come back.
  void setWaiting(bool waiting);
  /// The guest runs no more: ends waits for good, and input. Output that is there is still written.
  void close();
  /// Calls `done` on the loop once the sink has taken (or will never take) what the guest has written. On the
  /// loop. One at a time.
  void whenFlushed(std::function<void()> done);
  /// Waits until the output is written, at most `limit`; false if some is left. Not on the loop, which must
  /// run.
  bool flush(std::chrono::milliseconds limit);

  bool sawPanic() const { return sawPanic_.load(std::memory_order_acquire); }
  /// The line, at most 256 bytes; empty unless sawPanic().
  std::string panicText() const;

 private:
  /// Runs `access` on the registers under the lock, then raises the interrupt if its line has risen.
  template <typename Access>
  void withRegisters(std::unique_lock<std::mutex>& lock, Access&& access);
  void transmit(uint8_t byte);
  bool inputOpen() const { return polledInput_ || uart_.receiveInterruptEnabled(); }
  void refill();
  void wantInput();
  void postOnce(bool Serial::*flag, void (Serial::*function)());

  // On the loop:
  void scheduleOutput();
  void writeOutput();
  void readInput();

  EventLoop& loop_;
  const std::unique_ptr<ByteSink> sink_;
  const std::unique_ptr<ByteSource> source_;
  const std::function<void()> raiseInterrupt_;
  const std::function<void(const std::string&)> panicked_;
  const bool polledInput_;
  std::shared_ptr<Serial*> self_;  ///< posted functions hold it weakly

  mutable std::mutex mutex_;
  std::condition_variable taken_;
  Uart16550 uart_;
  bool lineHigh_ = false;
  bool closed_ = false;
  bool waiting_ = true;
  std::vector<uint8_t> output_;  ///< from the vCPUs, not yet with the I/O thread
  size_t outputPending_ = 0;     ///< output_ and what is left of writing_
  bool outputScheduled_ = false;
  bool outputComplete_ = false;  ///< transmit() found the end of a panic's line
  std::deque<uint8_t> input_;    ///< read from the source, not yet in the FIFO
  bool inputScheduled_ = false;
  PanicDetector detector_;
  std::atomic<bool> sawPanic_{false};

  // The loop's own:
  std::vector<uint8_t> writing_;
  size_t writingAt_ = 0;
  bool sinkBroken_ = false;
  bool awaitingSink_ = false;
  bool awaitingSource_ = false;
  bool sourceEnded_ = false;
  bool timerSet_ = false;
  EventLoop::TimerId timer_ = 0;
  std::function<void()> flushed_;
};

}  // namespace tsvmm
