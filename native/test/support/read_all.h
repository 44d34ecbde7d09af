#pragma once

#include <unistd.h>

#include <cstddef>
#include <string>

namespace tsvmm::test {

/// All that comes from a descriptor, to its end of file.
inline std::string readAll(int fd) {
  std::string text;
  char bytes[65536];
  ssize_t count = 0;
  while ((count = read(fd, bytes, sizeof bytes)) > 0) {
    text.append(bytes, static_cast<std::size_t>(count));
  }
  return text;
}

}  // namespace tsvmm::test
