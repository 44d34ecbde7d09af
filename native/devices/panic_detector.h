#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tsvmm {

/// Finds the line of a Linux kernel that panics in a console's output, byte by byte: for guests without a
/// pvpanic driver. The guest can print that text without panicking, so it is a hint, never a fact.
class PanicDetector {
 public:
  static constexpr size_t kMaxText = 256;

  /// True for the one byte that completes the first such line (its end, or when kMaxText bytes of it are
  /// there).
  bool feed(uint8_t byte);
  /// From "Kernel panic" on to the end of the line, without control characters; empty if there was none yet.
  const std::string& text() const { return text_; }

 private:
  enum class State { kSearching, kCollecting, kDone };
  State state_ = State::kSearching;
  size_t matched_ = 0;
  std::string text_;
};

}  // namespace tsvmm
