#pragma once

#include <cstdint>
#include <string_view>

namespace tsvmm::agent {

/// The next line of a text, without its newline, which is cut off the text. False at its end.
bool nextLine(std::string_view& text, std::string_view& line);

/// The next word of a line, which is cut off the line with the blanks around it. Empty at its end.
std::string_view nextWord(std::string_view& line);

/// A decimal number at the beginning of a text. 0 where there is none.
std::uint64_t decimal(std::string_view text);

/// The number after `key` in lines of "KEY NUMBER", as control groups have them. 0 where there is none.
std::uint64_t keyedNumber(std::string_view text, std::string_view key);

}  // namespace tsvmm::agent
