#include "devices/panic_detector.h"

#include <string_view>

namespace tsvmm {
namespace {
constexpr std::string_view kMark = "Kernel panic - not syncing";
}

bool PanicDetector::feed(uint8_t byte) {
  if (state_ == State::kDone) {
    return false;
  }
  if (state_ == State::kSearching) {
    // 'K' is nowhere else in the text, so a mismatch can only start it anew.
    if (byte == static_cast<uint8_t>(kMark[matched_])) {
      matched_++;
    } else {
      matched_ = byte == static_cast<uint8_t>(kMark[0]) ? 1 : 0;
    }
    if (matched_ == kMark.size()) {
      state_ = State::kCollecting;
      text_ = kMark;
    }
    return false;
  }
  if (byte == '\n' || byte == '\r') {
    state_ = State::kDone;
    return true;
  }
  text_ += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '?';
  if (text_.size() == kMaxText) {
    state_ = State::kDone;
    return true;
  }
  return false;
}

}  // namespace tsvmm
