#pragma once

// No iostream in a program that is unpacked and started with every machine.
#define JSON_NO_IO
#include <nlohmann/json.hpp>

namespace tsvmm::agent {

using Json = nlohmann::json;

}  // namespace tsvmm::agent
