#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "virtio/device.h"
#include "virtio/net/backend.h"
#include "virtio/net/frame_filter.h"
#include "virtio/net/receive_buffers.h"
#include "virtio/rate_limiter.h"

namespace tsvmm::virtio::net {

/// What the device promises the driver in its features and configuration space.
struct NetOptions {
  MacAddress mac{};
  uint32_t mtu = 1500;  ///< of the longest frame that is not segmented
  bool linkUp = true;   ///< as the configuration space says at first
  RateLimits toGuest;
  RateLimits fromGuest;
};

/// The network device (virtio 1.2, 5.1): pairs of queues (receive, transmit) between the guest and a Backend,
/// and a control queue. A frame is moved by the one system call that reads it from the backend into the
/// guest's buffers, or writes it from there. The backend is watched edge-triggered: it is read until it has
/// nothing more, and when the guest has no buffers it is left alone until the driver brings some.
class NetDevice final : public Device {
 public:
  NetDevice(std::unique_ptr<Backend> backend, NetOptions options);
  ~NetDevice() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override;
  Value save() override;
  void restore(Host& host, const Value& state) override;

  /// Plugs and unplugs the cable; from any thread. Frames are thrown away while it is unplugged.
  void setLink(bool up);
  /// Closes the backend for good. False, and nothing done, while the device is active. Not while the loop may
  /// call the device.
  bool close();

 private:
  struct Pair {
    ReceiveBuffers buffers;
    std::vector<uint8_t> waiting;  ///< a frame with its header that was read and did not fit
    size_t lastFrame = 0;
    bool readable = false;  ///< the backend may have frames
    bool starved = false;   ///< the driver's next notification goes on with receiving
    bool blocked = false;   ///< the backend's readiness goes on with transmitting
    bool watched = false;
  };
  static constexpr const char* kGone = "has gone";
  enum class Received { kFrame, kNothing, kNoBuffers, kStop };

  uint16_t receiveQueue(uint16_t pair) const { return static_cast<uint16_t>(2 * pair); }
  uint16_t transmitQueue(uint16_t pair) const { return static_cast<uint16_t>(2 * pair + 1); }

  void begin(Host& host);
  void watch(uint16_t pair);
  void unwatch(uint16_t pair);
  void happened(uint16_t pair, uint32_t events);
  void usePairs(uint16_t count);
  void applyOffloads(uint64_t offloads);
  void lost(const char* why);
  void tellLink();

  void receive(uint16_t pair);
  Received receiveFrame(Pair& pair, uint16_t index);
  Received deliverWaiting(Pair& pair, Queue& queue);
  void finishFrame(Pair& pair, Queue& queue, size_t size);

  void transmit(uint16_t pair);
  /// 0, or EAGAIN: the backend has no room.
  int send(uint16_t pair, Chain& chain);
  void waitForRoom(uint16_t pair);

  void control();
  bool command(Chain& chain);
  bool setReceiveMode(uint8_t command, Chain& chain);
  bool setMacTables(Chain& chain);
  bool setMac(Chain& chain);
  bool setVlan(uint8_t command, Chain& chain);
  bool setPairs(Chain& chain);
  bool setOffloads(Chain& chain);

  void countDropped() { metrics.errors.fetch_add(1, std::memory_order_relaxed); }
  bool negotiated(uint64_t feature) const { return (features_ & feature) != 0; }
  /// Interrupts the driver if it wants to hear of anything that was pushed.
  void tell();
  /// The same, within a millisecond or two: what comes meanwhile is told by the same interrupt.
  void tellSoon();
  /// Goes on with a queue after others have had their turn, or later; one such visit is pending at most.
  void come(uint16_t queue);
  void comeAfter(std::chrono::nanoseconds delay, uint16_t queue);
  void arrive(uint16_t queue);
  /// Calls `function(NetDevice&)` unless the device has been reset meanwhile.
  template <typename F>
  auto whileActive(F&& function) {
    return [weak = std::weak_ptr(active_), function = std::forward<F>(function)] {
      if (const auto active = weak.lock()) {
        function(**active);
      }
    };
  }
  void checkBroken(uint16_t queue);

  std::unique_ptr<Backend> backend_;
  const NetOptions options_;
  Host* host_ = nullptr;
  std::shared_ptr<NetDevice*> active_;  ///< posted functions hold it weakly: gone with a reset
  uint64_t features_ = 0;
  uint64_t offloads_ = 0;
  bool mergeable_ = false;
  bool paused_ = false;
  size_t longest_ = 0;  ///< the longest frame with its header that is expected
  uint16_t controlQueue_ = 2;
  uint16_t pairsInUse_ = 1;
  std::vector<Pair> pairs_;
  std::vector<bool> coming_;  ///< by queue
  FrameFilter filter_;
  RateLimiter toGuest_;
  RateLimiter fromGuest_;
  bool tellingSoon_ = false;
  uint32_t untoldFrames_ = 0;
  uint64_t untoldBytes_ = 0;

  /// What of a frame lies behind the buffers that were expected to suffice; also where dropped ones go.
  std::unique_ptr<uint8_t[]> overflow_;
  std::vector<iovec> parts_;

  bool lost_ = false;      ///< the backend is gone
  bool saidDown_ = false;  ///< the log knows that the backend is down
  bool linkTold_;          ///< as the configuration space says

  std::mutex linkMutex_;
  bool linkWanted_;
  EventLoop* linkLoop_ = nullptr;  ///< while active
  std::weak_ptr<NetDevice*> linkActive_;
  bool linkUp_;  ///< the I/O thread's
};

}  // namespace tsvmm::virtio::net
