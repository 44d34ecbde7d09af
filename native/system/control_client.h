#pragma once

#include <string>
#include <string_view>

#include "io/fd.h"

namespace tsvmm::system {

/// Most bytes of a line that is an answer.
constexpr size_t kMostAnswer = size_t{16} << 20;

/// Connects to the Unix socket `path`, sends `line` and a newline, and waits for the first line of the
/// answer, which it leaves in `answer` without its newline. `timeoutMs` is for all of it, 0 for no limit.
/// Returns 0 or -errno: -ETIMEDOUT, -ECONNRESET where the other side closed before a whole line, -EMSGSIZE
/// where the line has no end.
int controlRequest(const std::string& path, std::string_view line, unsigned timeoutMs, std::string& answer);

/// A connection that goes on delivering lines.
class ControlStream {
 public:
  /// Connects and sends `line` and a newline. Returns 0 or -errno.
  int open(const std::string& path, std::string_view line);
  int fd() const { return socket_.get(); }
  void close() { socket_.reset(); }

  /// Reads what is there, without waiting; 0, or -errno: -EAGAIN where nothing is, -ECONNRESET at the end.
  int receive();
  /// Takes the next whole line out of what was read; false where there is none.
  bool next(std::string& line);

 private:
  Fd socket_;
  std::string read_;
  size_t taken_ = 0;
  size_t searched_ = 0;
};

}  // namespace tsvmm::system
