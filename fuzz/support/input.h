#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace tsvmm::fuzz {

/// The fuzzer's bytes, taken from the front; zeros where they have run out.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}

  bool done() const { return rest_.empty(); }
  size_t left() const { return rest_.size(); }
  template <typename T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const std::span<const uint8_t> bytes = takeBytes(sizeof value);
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  uint8_t byte() { return take<uint8_t>(); }
  uint32_t below(uint32_t limit) { return limit == 0 ? 0 : take<uint16_t>() % limit; }
  bool chance() { return (byte() & 1) != 0; }
  std::span<const uint8_t> takeBytes(size_t length) {
    const auto taken = rest_.first(std::min(length, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace tsvmm::fuzz
