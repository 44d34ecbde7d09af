#include "addon/arguments.h"

#include <cmath>

namespace tsvmm::addon {
namespace {

[[noreturn]] void refuse(const Napi::Value& value, const char* name, const char* expected) {
  throw Napi::TypeError::New(value.Env(), std::string(name) + " must be " + expected);
}

Napi::Array arrayArgument(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) {
    refuse(value, name, "an array");
  }
  return value.As<Napi::Array>();
}

}  // namespace

int64_t integerArgument(const Napi::Value& value, const char* name, double least, double most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : least - 1;
  if (!(number >= least && number <= most) || std::trunc(number) != number) {
    refuse(value, name, "an integer in its range");
  }
  return static_cast<int64_t>(number);
}

int intArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return static_cast<int>(integerArgument(info[index], name, INT32_MIN, INT32_MAX));
}

std::string stringArgument(const Napi::Value& value, const char* name) {
  if (!value.IsString()) {
    refuse(value, name, "a string");
  }
  std::string string = value.As<Napi::String>();
  if (string.find('\0') != std::string::npos) {
    refuse(value, name, "a string without NUL");
  }
  return string;
}

std::vector<std::string> stringsArgument(const Napi::Value& value, const char* name) {
  const Napi::Array array = arrayArgument(value, name);
  std::vector<std::string> strings;
  for (uint32_t i = 0; i < array.Length(); i++) {
    strings.push_back(stringArgument(array.Get(i), name));
  }
  return strings;
}

std::vector<int> intsArgument(const Napi::Value& value, const char* name) {
  const Napi::Array array = arrayArgument(value, name);
  std::vector<int> numbers;
  for (uint32_t i = 0; i < array.Length(); i++) {
    numbers.push_back(static_cast<int>(integerArgument(array.Get(i), name, -1, INT32_MAX)));
  }
  return numbers;
}

Napi::Function functionArgument(const Napi::Value& value, const char* name) {
  if (!value.IsFunction()) {
    refuse(value, name, "a function");
  }
  return value.As<Napi::Function>();
}

}  // namespace tsvmm::addon
