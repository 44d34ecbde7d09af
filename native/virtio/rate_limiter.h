#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "io/event_loop.h"

namespace tsvmm::virtio {

/// What a device may do a second; 0: as much as it likes. A burst is what may be done at once after a pause,
/// on top of nothing: a second's worth where it is 0.
struct RateLimits {
  uint64_t bytesPerSecond = 0;
  uint64_t bytesBurst = 0;
  uint64_t operationsPerSecond = 0;
  uint64_t operationsBurst = 0;
  bool any() const { return bytesPerSecond != 0 || operationsPerSecond != 0; }
};

/// Holds the work of a device to RateLimits, by two token buckets. One operation may be larger than a whole
/// burst: it is let through and paid for afterwards, so that nothing waits for ever. One thread.
class RateLimiter {
 public:
  using Clock = std::chrono::steady_clock;

  RateLimiter() = default;
  explicit RateLimiter(const RateLimits& limits, Clock::time_point now = Clock::now());

  bool limits() const { return bytes_.rate != 0 || operations_.rate != 0; }
  /// Whether an operation may begin now. Changes nothing; ask before taking work.
  bool ready(Clock::time_point now = Clock::now());
  /// Pays for an operation of `bytes`.
  void spend(uint64_t bytes);
  /// How long until ready(): at least a millisecond, unless it is now.
  std::chrono::nanoseconds wait(Clock::time_point now = Clock::now());

 private:
  struct Bucket {
    uint64_t rate = 0;  ///< tokens a second; 0: no limit
    double burst = 0;   ///< the most it holds
    double tokens = 0;  ///< negative: owed
    void refill(std::chrono::nanoseconds passed);
    std::chrono::nanoseconds untilReady() const;
  };
  void refill(Clock::time_point now);

  Bucket bytes_;
  Bucket operations_;
  Clock::time_point last_{};
};

}  // namespace tsvmm::virtio
