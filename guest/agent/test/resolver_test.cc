#include "resolver.h"

#include <doctest/doctest.h>

#include <string>

using namespace tsvmm::agent;

namespace {

/// A question for `a.b` with, or without, something behind it (EDNS).
std::string question(bool edns) {
  return std::string("\x12\x34\x01\0\0\1\0\0\0\0\0", 11) + std::string(1, edns ? '\1' : '\0') +
         std::string("\1a\1b\0\0\1\0\1", 9) + (edns ? std::string(11, '\0') : "");
}

std::string answer(std::size_t length) {
  std::string text("\x12\x34\x81\x80\0\1\0\5\0\0\0\1", 12);
  text.resize(length, 'x');
  return text;
}

}  // namespace

TEST_CASE("resolver: an answer that fits goes back as it is") {
  CHECK(datagramOf(question(false), answer(512)) == answer(512));
  CHECK(datagramOf(question(true), answer(1232)) == answer(1232));
}

TEST_CASE("resolver: of a longer one the client gets its question, and asks again by TCP") {
  const std::string expected =
      std::string("\x12\x34\x83\x80\0\1\0\0\0\0\0\0", 12) + std::string("\1a\1b\0\0\1\0\1", 9);
  CHECK(datagramOf(question(false), answer(513)) == expected);
  CHECK(datagramOf(question(true), answer(1233)) == expected);
}

TEST_CASE("resolver: a question that is not whole is not repeated") {
  const std::string header("\x12\x34\x83\x80\0\0\0\0\0\0\0\0", 12);
  for (const std::size_t length : {std::size_t{12}, std::size_t{13}, std::size_t{16}, std::size_t{20}}) {
    CHECK(datagramOf(question(false).substr(0, length), answer(513)) == header);
  }
  CHECK(datagramOf(std::string(12, '\xff'), answer(1233)) == header);
}
