#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "virtio/console/port.h"
#include "virtio/device.h"

namespace tsvmm::virtio {

/// The console device (virtio 1.2, 5.3), with one port, or with several and a pair of control queues. Port 0
/// has the queues 0 and 1, the control messages 2 and 3, port N the queues 2 N + 2 and 2 N + 3; the first of
/// each pair goes to the guest.
class Console final : public Device {
 public:
  static constexpr uint16_t kReceiveQueue = 0;
  static constexpr uint16_t kTransmitQueue = 1;
  static constexpr uint16_t kControlReceiveQueue = 2;
  static constexpr uint16_t kControlTransmitQueue = 3;
  static constexpr uint64_t kFeatureSize = uint64_t{1} << 0;       // VIRTIO_CONSOLE_F_SIZE
  static constexpr uint64_t kFeatureMultiport = uint64_t{1} << 1;  // VIRTIO_CONSOLE_F_MULTIPORT

  /// At least one port. `changed` is called, on the I/O thread, when opens() of a port has changed. `quiet`:
  /// see ConsolePort::kQuiet, for a driver that has not negotiated several ports.
  explicit Console(std::vector<ConsolePortOptions> ports, std::function<void()> changed = {},
                   std::chrono::milliseconds quiet = ConsolePort::kQuiet);
  ~Console() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override;
  Value save() override;
  void restore(Host& host, const Value& state) override;

  // From any thread, also before activation. `port` is below the number of ports.

  size_t ports() const { return ports_.size(); }
  /// The terminal's new size, told to the driver.
  void resize(size_t port, uint16_t columns, uint16_t rows);
  /// See ConsolePort::hangUp().
  void hangUp(size_t port);
  /// How often the guest has opened and closed the port, together: odd while it is open.
  uint32_t opens(size_t port) const { return ports_[port]->opens.load(std::memory_order_relaxed); }

 private:
  /// What is to be told to the driver, in this order. A kind is owed or not: however often the guest makes
  /// the device owe it, there is nothing that grows.
  enum Owed : uint8_t { kAdd, kConsole, kName, kSize, kOpen, kOwedKinds };

  struct Port {
    std::unique_ptr<ConsolePort> stream;
    std::atomic<uint32_t> opens{0};
    bool ready = false;  ///< the driver has taken it
    bool guestOpen = false;
    bool openTold = false;  ///< what the driver last heard of the host's side
    uint8_t owed = 0;       ///< bits by Owed
    uint16_t columns = 0;
    uint16_t rows = 0;
    // Under mutex_: what other threads have asked for.
    bool resized = false;
    uint16_t newColumns = 0;
    uint16_t newRows = 0;
    bool hungUp = false;
  };

  void begin(Host& host, bool restored);
  void takeRequests();
  void applySize(size_t index);
  void postRequests();
  void owe(size_t index, Owed kind) { ports_[index]->owed |= static_cast<uint8_t>(1u << kind); }
  void sendControl();
  bool sendNext(Queue& queue, Chain& chain);
  std::vector<uint8_t> message(size_t index, Owed kind);
  void receiveControl();
  void handle(uint32_t id, uint16_t event, uint16_t value);
  void setGuestOpen(size_t index, bool open);
  void hostChanged(size_t index);
  void bad(const std::string& what);

  const std::function<void()> changed_;
  const std::chrono::milliseconds quiet_;
  std::vector<std::unique_ptr<Port>> ports_;
  Host* host_ = nullptr;
  std::shared_ptr<Console*> active_;  ///< posted functions hold it weakly: gone with a reset
  bool multiport_ = false;
  bool paused_ = false;
  bool complained_ = false;

  std::mutex mutex_;
  EventLoop* loop_ = nullptr;  ///< while active
  std::weak_ptr<Console*> posted_;
};

}  // namespace tsvmm::virtio
