#include "freezer.h"

#include <cerrno>
#include <utility>

#include "error.h"
#include "keyed.h"

namespace tsvmm::agent {

Freezer::~Freezer() { end(); }

void Freezer::pause(Reply reply) {
  if (frozen_) {
    throw OperationError("the container is paused already", EBUSY);
  }
  // Before the request, so that no change is missed.
  auto watch = std::make_shared<CgroupWatch>(loop_, cgroup_.folder() + "/cgroup.events",
                                             [this](const std::string& events) { check(events); });
  if (!cgroup_.freeze(true)) {
    throw systemError("cannot freeze", cgroup_.folder());
  }
  frozen_ = true;
  waiting_ = std::move(reply);
  watch_ = std::move(watch);
  check(watch_->read());
}

void Freezer::check(const std::string& events) {
  if (waiting_ && keyedNumber(events, "frozen") == 1) {
    // Not right away: the watch, which may be the caller, goes first.
    loop_.post([done = std::exchange(waiting_, std::nullopt)->done, watch = std::move(watch_)] { done(); });
  }
}

void Freezer::resume() {
  if (!frozen_) {
    throw OperationError("the container is not paused", EINVAL);
  }
  if (!cgroup_.freeze(false)) {
    throw systemError("cannot thaw", cgroup_.folder());
  }
  frozen_ = false;
  fail("the container was resumed before it was paused");
}

void Freezer::end() { fail("the container has ended before it was paused"); }

void Freezer::fail(const std::string& message) {
  watch_.reset();
  if (const std::optional<Reply> waiting = std::exchange(waiting_, std::nullopt)) {
    waiting->failed(message);
  }
}

}  // namespace tsvmm::agent
