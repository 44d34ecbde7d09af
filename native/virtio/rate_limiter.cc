#include "virtio/rate_limiter.h"

#include <algorithm>

namespace tsvmm::virtio {
namespace {
// Waking up more often than this costs more than it smooths.
constexpr std::chrono::nanoseconds kLeastWait = std::chrono::milliseconds(1);
constexpr double kNanoseconds = 1e9;
}  // namespace

RateLimiter::RateLimiter(const RateLimits& limits, Clock::time_point now) : last_(now) {
  const auto bucket = [](uint64_t rate, uint64_t burst) {
    const auto most = static_cast<double>(burst != 0 ? burst : rate);
    return Bucket{rate, most, most};
  };
  bytes_ = bucket(limits.bytesPerSecond, limits.bytesBurst);
  operations_ = bucket(limits.operationsPerSecond, limits.operationsBurst);
}

void RateLimiter::Bucket::refill(std::chrono::nanoseconds passed) {
  const double gained = static_cast<double>(rate) * static_cast<double>(passed.count()) / kNanoseconds;
  tokens = std::min(burst, tokens + gained);
}

std::chrono::nanoseconds RateLimiter::Bucket::untilReady() const {
  if (rate == 0 || tokens > 0) {
    return {};
  }
  const double seconds = (1 - tokens) / static_cast<double>(rate);
  return std::chrono::nanoseconds(static_cast<int64_t>(std::min(seconds, 3600.0) * kNanoseconds));
}

void RateLimiter::refill(Clock::time_point now) {
  if (now > last_) {
    bytes_.refill(now - last_);
    operations_.refill(now - last_);
    last_ = now;
  }
}

bool RateLimiter::ready(Clock::time_point now) {
  if (!limits()) {
    return true;
  }
  refill(now);
  return bytes_.untilReady().count() == 0 && operations_.untilReady().count() == 0;
}

void RateLimiter::spend(uint64_t bytes) {
  bytes_.tokens -= static_cast<double>(bytes);
  operations_.tokens -= 1;
}

std::chrono::nanoseconds RateLimiter::wait(Clock::time_point now) {
  if (ready(now)) {
    return {};
  }
  return std::max({kLeastWait, bytes_.untilReady(), operations_.untilReady()});
}

}  // namespace tsvmm::virtio
