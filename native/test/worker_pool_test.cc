#include "io/worker_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <set>

using namespace tsvmm;

TEST_CASE("worker pool: work ends on its threads, done runs on the loop") {
  EventLoop loop;
  loop.start();
  std::atomic<int> worked{0}, done{0};
  std::atomic<bool> onLoop{true};
  std::promise<void> all;
  WorkerPool pool(loop, 3);
  for (int i = 0; i < 200; i++) {
    pool.submit([&] { worked++; },
                [&] {
                  onLoop = onLoop && loop.inLoop();
                  if (++done == 200) {
                    all.set_value();
                  }
                });
  }
  all.get_future().wait();
  CHECK(worked == 200);
  CHECK(onLoop);
}

TEST_CASE("worker pool: as many at once as allowed, no more") {
  EventLoop loop;
  loop.start();
  WorkerPool pool(loop, 2);
  std::promise<void> open;
  std::shared_future<void> gate(open.get_future());
  std::promise<void> bothRun;
  std::atomic<int> running{0}, most{0};
  for (int i = 0; i < 6; i++) {
    pool.submit(
        [&] {
          const int now = ++running;
          most = std::max(most.load(), now);
          if (now == 2) {
            bothRun.set_value();
            gate.wait();
          } else {
            gate.wait();
          }
          running -= 10;  // later ones count from below
        },
        [] {});
  }
  bothRun.get_future().wait();
  open.set_value();
  pool.drain();
  CHECK(most == 2);
}

TEST_CASE("worker pool: drain waits, and what is done may outlive the pool") {
  EventLoop loop;
  loop.start();
  std::atomic<int> worked{0};
  auto done = std::make_shared<std::atomic<int>>(0);
  {
    WorkerPool pool(loop, 2);
    pool.drain();
    for (int i = 0; i < 50; i++) {
      pool.submit([&] { worked++; }, [done] { ++*done; });
    }
    pool.drain();
    CHECK(worked == 50);
    for (int i = 0; i < 50; i++) {
      pool.submit([&] { worked++; }, [done] { ++*done; });
    }
  }
  CHECK(worked == 100);
  loop.stop();
  CHECK(*done == 100);
}
