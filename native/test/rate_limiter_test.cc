#include "virtio/rate_limiter.h"

#include <doctest/doctest.h>

using namespace std::chrono_literals;
using tsvmm::virtio::RateLimiter;
using tsvmm::virtio::RateLimits;

TEST_CASE("rate limiter: without limits everything may begin at once") {
  RateLimiter limiter;
  limiter.spend(UINT64_MAX);
  CHECK(limiter.ready());
  CHECK(limiter.wait() == 0ns);
}

TEST_CASE("rate limiter: operations beyond the burst wait for their share of a second") {
  const auto start = RateLimiter::Clock::now();
  RateLimiter limiter(RateLimits{.operationsPerSecond = 100, .operationsBurst = 3}, start);
  for (int i = 0; i < 3; i++) {
    REQUIRE(limiter.ready(start));
    limiter.spend(1 << 20);
  }
  CHECK_FALSE(limiter.ready(start));
  CHECK(limiter.wait(start) == 10ms);
  CHECK(limiter.ready(start + 10ms));
  limiter.spend(0);
  CHECK_FALSE(limiter.ready(start + 10ms));
}

TEST_CASE("rate limiter: an operation larger than the burst goes through and is paid for afterwards") {
  const auto start = RateLimiter::Clock::now();
  RateLimiter limiter(RateLimits{.bytesPerSecond = 1000, .bytesBurst = 10}, start);
  REQUIRE(limiter.ready(start));
  limiter.spend(1010);
  CHECK_FALSE(limiter.ready(start + 1000ms));
  CHECK(limiter.ready(start + 1002ms));
}

TEST_CASE("rate limiter: a long pause saves up no more than the burst") {
  const auto start = RateLimiter::Clock::now();
  RateLimiter limiter(RateLimits{.operationsPerSecond = 1000, .operationsBurst = 2}, start);
  const auto later = start + 1h;
  int done = 0;
  while (limiter.ready(later)) {
    limiter.spend(0);
    done++;
  }
  CHECK(done == 2);
}
