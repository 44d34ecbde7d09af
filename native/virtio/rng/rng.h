#pragma once

#include "virtio/device.h"

namespace tsvmm::virtio {

/// The entropy device (virtio 1.2, 5.4): fills what the driver queues with the host's random bytes.
class Rng final : public Device {
 public:
  /// Bytes given for one buffer at most; the used length tells the driver how many it got.
  static constexpr uint64_t kMaxPerRequest = 64 << 10;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;

 private:
  Host* host_ = nullptr;
  std::shared_ptr<Rng*> active_;  ///< posted functions hold it weakly: gone with a reset
};

}  // namespace tsvmm::virtio
