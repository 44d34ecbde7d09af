#pragma once

#include <memory>

#include "virtio/device.h"
#include "virtio/rate_limiter.h"

namespace tsvmm::virtio {

/// The entropy device (virtio 1.2, 5.4): fills what the driver queues with the host's random bytes.
class Rng final : public Device {
 public:
  /// Bytes given for one buffer at most; the used length tells the driver how many it got.
  static constexpr uint64_t kMaxPerRequest = 64 << 10;

  explicit Rng(const RateLimits& limits = {});
  ~Rng() override { reset(); }

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override { paused_ = false; }

 private:
  void serve();
  /// Comes back by itself.
  void later(std::chrono::nanoseconds delay);

  Host* host_ = nullptr;
  std::shared_ptr<Rng*> active_;  ///< posted functions hold it weakly: gone with a reset
  RateLimiter limiter_;
  const uint64_t most_;  ///< for one buffer
  bool paused_ = false;
  bool waiting_ = false;  ///< later() has yet to come
};

}  // namespace tsvmm::virtio
