#pragma once

#include <string>
#include <vector>

namespace tsvmm::agent {

/// Loads the kernel modules that `list` names, one path a line, in its order; blank lines and those that
/// begin with '#' are skipped, and a missing list is an empty one. A stock kernel has its virtio drivers as
/// modules. Returns one message for each that could not be loaded.
std::vector<std::string> loadModules(const char* list);

}  // namespace tsvmm::agent
