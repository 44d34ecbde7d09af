#pragma once

#include <string>
#include <vector>

namespace tsvmm::agent {

/// Where crun keeps what it knows of a container.
std::string crunState(const std::string& id);

/// The words of `crun COMMAND`, to which options and the container's id are added. What crun has to say goes
/// to `log`.
std::vector<std::string> crunCommand(const std::string& command, const std::string& log);

/// Why a crun that ended with `status` refused, in its own words where it left some in `log`.
std::string crunRefusal(const std::string& log, int status);

/// Lets the process of a created container go: all that `crun start` does where there are no hooks for it to
/// run, without starting a program. Throws OperationError.
void releaseProcess(const std::string& id);

}  // namespace tsvmm::agent
