#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

#include "json.h"

namespace tsvmm::agent {

/// How many the host takes.
constexpr std::size_t kMaxProcesses = 4096;

/// What /proc says of the processes given: the result of container.processes (docs/agent-protocol.md). One
/// that has ended meanwhile is left out, and how long their arguments may be, all together, is bounded.
/// `proc`: where the file system is mounted.
Json readProcesses(const std::vector<pid_t>& pids, const std::string& proc = "/proc");

}  // namespace tsvmm::agent
