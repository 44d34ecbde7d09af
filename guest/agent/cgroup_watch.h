#pragma once

#include <functional>
#include <string>

#include "io/fd.h"
#include "loop.h"

namespace tsvmm::agent {

/// Watches one of a control group's files of events, which the kernel says have changed.
class CgroupWatch {
 public:
  /// `changed` is called from the loop, with the file's content. Throws OperationError.
  CgroupWatch(Loop& loop, const std::string& path, std::function<void(const std::string& content)> changed);
  ~CgroupWatch();
  CgroupWatch(const CgroupWatch&) = delete;
  CgroupWatch& operator=(const CgroupWatch&) = delete;

  /// The content now. A change that it shows is not told any more.
  std::string read();

 private:
  void onEvent();

  Loop& loop_;
  Fd fd_;
  std::function<void(const std::string&)> changed_;
};

}  // namespace tsvmm::agent
