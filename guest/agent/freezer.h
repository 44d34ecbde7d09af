#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cgroup.h"
#include "cgroup_watch.h"
#include "loop.h"
#include "reply.h"

namespace tsvmm::agent {

/// Pauses what is in a control group, and lets it go on.
class Freezer {
 public:
  Freezer(Loop& loop, const Cgroup& cgroup) : loop_(loop), cgroup_(cgroup) {}
  ~Freezer();
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;

  /// From the request to pause on until it is let go.
  bool frozen() const { return frozen_; }
  /// Answers when nothing runs any more. Throws OperationError.
  void pause(Reply reply);
  /// Throws OperationError.
  void resume();
  /// The container has ended: a pause that waits fails.
  void end();

 private:
  void check(const std::string& events);
  void fail(const std::string& message);

  Loop& loop_;
  const Cgroup& cgroup_;
  bool frozen_ = false;
  std::optional<Reply> waiting_;
  std::shared_ptr<CgroupWatch> watch_;
};

}  // namespace tsvmm::agent
