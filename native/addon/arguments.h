#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tsvmm::addon {

/// A whole number in [least, most]. Throws a Napi::TypeError that names it: NaN and fractions would become 0,
/// which is a descriptor.
int64_t integerArgument(const Napi::Value& value, const char* name, double least, double most);
int intArgument(const Napi::CallbackInfo& info, size_t index, const char* name);

/// Throw a Napi::TypeError. A string with a NUL in it is none: the kernel would see its beginning only.
std::string stringArgument(const Napi::Value& value, const char* name);
std::vector<std::string> stringsArgument(const Napi::Value& value, const char* name);
std::vector<int> intsArgument(const Napi::Value& value, const char* name);
Napi::Function functionArgument(const Napi::Value& value, const char* name);

}  // namespace tsvmm::addon
