#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tsvmm {

/// A value that was read does not fit what it is read as; the message names the field.
class ValueError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A plain value: what JSON has, with whole numbers of 64 bits and with bytes. The state of a device is saved
/// as one; the addon's glue makes JavaScript values of it and back.
class Value {
 public:
  using Bytes = std::vector<uint8_t>;
  using List = std::vector<Value>;
  using Record = std::map<std::string, Value, std::less<>>;

  Value() = default;
  Value(bool value) : value_(value) {}
  template <std::unsigned_integral T>
  requires(!std::same_as<T, bool>) Value(T value) : value_(static_cast<uint64_t>(value)) {}
  Value(std::string value) : value_(std::move(value)) {}
  Value(const char* value) : value_(std::string(value)) {}
  Value(Bytes value) : value_(std::move(value)) {}
  Value(List value) : value_(std::move(value)) {}
  Value(Record value) : value_(std::move(value)) {}

  bool isNull() const { return std::holds_alternative<std::monostate>(value_); }
  const bool* asBool() const { return std::get_if<bool>(&value_); }
  const uint64_t* asInteger() const { return std::get_if<uint64_t>(&value_); }
  const std::string* asString() const { return std::get_if<std::string>(&value_); }
  const Bytes* asBytes() const { return std::get_if<Bytes>(&value_); }
  const List* asList() const { return std::get_if<List>(&value_); }
  const Record* asRecord() const { return std::get_if<Record>(&value_); }

  bool operator==(const Value&) const = default;

  // Reading a record's fields. Each throws a ValueError that names the field where it is absent, of another
  // type, or out of range.

  const Value& at(std::string_view name) const;
  bool has(std::string_view name) const;
  bool boolean(std::string_view name) const;
  uint64_t integer(std::string_view name, uint64_t max = UINT64_MAX) const;
  template <std::unsigned_integral T>
  T number(std::string_view name) const {
    return static_cast<T>(integer(name, static_cast<T>(~T{0})));
  }
  const std::string& string(std::string_view name) const;
  const Bytes& bytes(std::string_view name) const;
  const List& list(std::string_view name) const;

 private:
  std::variant<std::monostate, bool, uint64_t, std::string, Bytes, List, Record> value_;
};

}  // namespace tsvmm
