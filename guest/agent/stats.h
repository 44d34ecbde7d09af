#pragma once

#include <string>

#include "json.h"

namespace tsvmm::agent {

/// What the control group in `folder` has used and may use: the result of container.stats
/// (docs/agent-protocol.md).
Json readStats(const std::string& folder);

}  // namespace tsvmm::agent
