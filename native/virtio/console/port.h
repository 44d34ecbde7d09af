#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/byte_stream.h"
#include "virtio/device.h"

namespace tsvmm::virtio {

/// What a port of a console device is made of.
struct ConsolePortOptions {
  std::string name;                    ///< told to the driver, where it is not empty
  bool console = false;                ///< a terminal (hvcN) rather than a plain port
  std::unique_ptr<ByteSource> source;  ///< null: no input ever
  std::unique_ptr<ByteSink> sink;      ///< null: output is thrown away
  uint16_t columns = 0;                ///< the terminal's size; 0: unknown
  uint16_t rows = 0;
};

/// One port of a console device (virtio 1.2, 5.3): what moves bytes between its two queues and the host.
/// Nothing is buffered on the way: the source is read when the guest has room, and the guest's buffers stay
/// pending until the sink has taken them, so that a slow reader slows the guest down and nothing is lost.
/// When the sink is broken (its reader has gone) output is thrown away, since a guest that waited for ever
/// would be of use to nobody. On the I/O thread.
class ConsolePort {
 public:
  /// Linux's driver makes its buffers available before it is ready to keep what comes in them, and throws the
  /// first input away if it comes too soon. With several ports a message says "open". With one port input
  /// begins this long after the first buffer, or after the last output meanwhile (the driver prints the
  /// kernel's log first), kMaxQuietWaits times at most.
  static constexpr std::chrono::milliseconds kQuiet{300};
  static constexpr int kMaxQuietWaits = 20;

  /// `hostChanged` is called when hostOpen() has become false.
  ConsolePort(ConsolePortOptions options, Metrics& metrics, std::function<void()> hostChanged);
  ~ConsolePort();
  ConsolePort(const ConsolePort&) = delete;
  ConsolePort& operator=(const ConsolePort&) = delete;

  const std::string& name() const { return options_.name; }
  bool console() const { return options_.console; }

  /// Input waits for openInput(), or until the driver has been quiet for `quiet` (0: for nothing).
  void activate(Host& host, uint16_t receiveQueue, bool waitForOpen, std::chrono::milliseconds quiet);
  void reset();
  void receive();
  void transmit();
  void pause();
  void resume();
  Value save() const;
  /// After activate(), paused. Throws a ValueError.
  void restore(const Value& state);

  /// Whether the guest wants input: its end of the port is open.
  void openInput(bool open);
  /// Whether there is anybody on the host's side: input may come or output is taken.
  bool hostOpen() const;
  /// Nobody on the host's side reads any more: output is thrown away, and with the end of the input the port
  /// is closed.
  void hangUp();

 private:
  void awaitQuiet();
  /// Writes what is left of the pending chain. False: the sink has to be waited for.
  bool writePending();
  void takePending(Chain& chain);
  void goOn();
  void waitForSink();
  void endSource();
  void breakSink();
  bool checkBroken(uint16_t index);
  void come(void (ConsolePort::*function)(), uint16_t index);
  uint16_t transmitQueue() const { return static_cast<uint16_t>(receiveQueue_ + 1); }

  const ConsolePortOptions options_;
  Metrics& metrics_;
  const std::function<void()> hostChanged_;
  Host* host_ = nullptr;
  uint16_t receiveQueue_ = 0;
  bool waitForOpen_ = false;
  std::chrono::milliseconds quiet_{};
  std::shared_ptr<ConsolePort*> active_;  ///< posted functions hold it weakly: gone with a reset

  bool sourceEnded_ = false;
  bool sinkBroken_ = false;
  bool awaitingSource_ = false;
  bool inputOpen_ = false;
  bool paused_ = false;
  int quietWaits_ = 0;
  bool spoke_ = false;  ///< output has come since the last wait began

  /// The chain that the sink has not taken wholly.
  bool pending_ = false;
  uint16_t pendingHead_ = 0;
  std::vector<iovec> pendingParts_;
  size_t pendingAt_ = 0;
  uint64_t pendingDone_ = 0;  ///< bytes of it that were taken
};

}  // namespace tsvmm::virtio
