#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "io/byte_stream.h"
#include "virtio/device.h"

namespace tsvmm::virtio {

/// The console device with one port (virtio 1.2, 5.3). Queue 0 takes what the source gives to the guest,
/// queue 1 what the guest writes to the sink. Nothing is buffered on the way: a source is read when the guest
/// has room, and the guest's buffers stay pending until the sink has taken them, so that a slow reader slows
/// the guest down and nothing is lost. When the sink is broken (its reader has gone) output is thrown away,
/// since a guest that waited for ever would be of use to nobody.
class Console final : public Device {
 public:
  static constexpr uint16_t kReceiveQueue = 0;
  static constexpr uint16_t kTransmitQueue = 1;
  static constexpr uint64_t kFeatureSize = uint64_t{1} << 0;  // VIRTIO_CONSOLE_F_SIZE

  /// Linux's driver makes its buffers available before it is ready to keep what comes in them, and throws the
  /// first input away if it comes too soon (one port has no message that says "open"). Input begins this long
  /// after the first buffer, or after the last output meanwhile (the driver prints the kernel's log first),
  /// kMaxQuietWaits times at most.
  static constexpr std::chrono::milliseconds kQuiet{300};
  static constexpr int kMaxQuietWaits = 20;

  /// Either stream may be null: no input ever, or output thrown away. `quiet` is 0 for a driver that needs
  /// none of kQuiet.
  Console(std::unique_ptr<ByteSource> source, std::unique_ptr<ByteSink> sink,
          std::chrono::milliseconds quiet = kQuiet);
  ~Console() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;

  /// The terminal's new size, told to the driver; from any thread, also before activation.
  void resize(uint16_t columns, uint16_t rows);

 private:
  void receive();
  void awaitQuiet();
  void transmit();
  /// Writes what is left of the pending chain. False: the sink has to be waited for.
  bool writePending();
  void waitForSink();
  void checkBroken(uint16_t index);
  void tellSize();
  void come(uint16_t index);

  const std::unique_ptr<ByteSource> source_;
  const std::unique_ptr<ByteSink> sink_;
  const std::chrono::milliseconds quiet_;
  Host* host_ = nullptr;
  std::shared_ptr<Console*> active_;  ///< posted functions hold it weakly: gone with a reset

  bool sourceEnded_ = false;
  bool sinkBroken_ = false;
  bool awaitingSource_ = false;
  bool inputOpen_ = false;
  int quietWaits_ = 0;
  bool spoke_ = false;  ///< output has come since the last wait began

  /// The chain that the sink has not taken wholly.
  bool pending_ = false;
  uint16_t pendingHead_ = 0;
  std::vector<iovec> pendingParts_;
  size_t pendingAt_ = 0;

  std::mutex sizeMutex_;
  EventLoop* sizeLoop_ = nullptr;  ///< while active
  std::weak_ptr<Console*> sizeActive_;
  bool sizeChanged_ = false;
  uint16_t columns_ = 0;
  uint16_t rows_ = 0;
};

}  // namespace tsvmm::virtio
