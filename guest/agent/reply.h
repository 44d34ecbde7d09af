#pragma once

#include <functional>
#include <string>

namespace tsvmm::agent {

/// The answer to something that takes its time: one of the two is called, once.
struct Reply {
  std::function<void()> done;
  std::function<void(const std::string& message)> failed;
};

}  // namespace tsvmm::agent
