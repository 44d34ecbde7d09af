#include "keyed.h"

#include <charconv>

namespace tsvmm::agent {

bool nextLine(std::string_view& text, std::string_view& line) {
  if (text.empty()) {
    return false;
  }
  const std::size_t end = text.find('\n');
  line = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return true;
}

std::string_view nextWord(std::string_view& line) {
  const std::size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string_view::npos) {
    line = {};
    return {};
  }
  const std::size_t end = line.find_first_of(" \t", begin);
  const std::string_view word = line.substr(begin, end == std::string_view::npos ? end : end - begin);
  line = end == std::string_view::npos ? std::string_view() : line.substr(end + 1);
  return word;
}

std::uint64_t decimal(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::uint64_t keyedNumber(std::string_view text, std::string_view key) {
  std::string_view line;
  while (nextLine(text, line)) {
    if (nextWord(line) == key) {
      return decimal(nextWord(line));
    }
  }
  return 0;
}

}  // namespace tsvmm::agent
