#include "io/value.h"

namespace tsvmm {
namespace {

[[noreturn]] void wrong(std::string_view name, const std::string& what) {
  throw ValueError(std::string(name) + ": " + what);
}

template <typename T>
const T& expect(std::string_view name, const T* value, const char* type) {
  if (value == nullptr) {
    wrong(name, std::string("expected ") + type);
  }
  return *value;
}

}  // namespace

const Value& Value::at(std::string_view name) const {
  const Record& record = expect(name, asRecord(), "a record that has it");
  const auto found = record.find(name);
  if (found == record.end()) {
    wrong(name, "is missing");
  }
  return found->second;
}

bool Value::has(std::string_view name) const {
  const Record* record = asRecord();
  return record != nullptr && record->find(name) != record->end();
}

bool Value::boolean(std::string_view name) const { return expect(name, at(name).asBool(), "true or false"); }

uint64_t Value::integer(std::string_view name, uint64_t max) const {
  const uint64_t value = expect(name, at(name).asInteger(), "a whole number");
  if (value > max) {
    wrong(name, "expected at most " + std::to_string(max) + ", got " + std::to_string(value));
  }
  return value;
}

const std::string& Value::string(std::string_view name) const {
  return expect(name, at(name).asString(), "a string");
}

const Value::Bytes& Value::bytes(std::string_view name) const {
  return expect(name, at(name).asBytes(), "bytes");
}

const Value::List& Value::list(std::string_view name) const {
  return expect(name, at(name).asList(), "a list");
}

}  // namespace tsvmm
