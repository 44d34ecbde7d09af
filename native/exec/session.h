#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "exec/console.h"
#include "exec/message.h"
#include "exec/options.h"
#include "io/fd.h"

namespace tsvmm::exec {

/// One process in the container, for which this program stands on the host: hands the request and the
/// descriptors over, sends signals and sizes on, and ends with the process's status.
class Session {
 public:
  explicit Session(const Options& options) : options_(options) {}

  /// Until the process has ended, or could not be started. Returns the exit status.
  int run();

 private:
  enum class Outcome { kGoesOn, kEnds };

  /// Blocks all signals, which from then on are read from a descriptor.
  bool takeSignals();
  bool sendRequest();
  Outcome serve();
  Outcome readSignals();
  Outcome readSocket();
  Outcome handle(const Message& message);
  Outcome started();
  Outcome fail(const std::string& message);
  void flush();
  bool sendLine(const std::string& line);
  bool writePidFile(std::string& error) const;
  void report(std::string_view text);

  const Options& options_;
  Console console_;
  Fd socket_;
  Fd signals_;
  bool running_ = false;
  bool resized_ = false;
  uint64_t pending_ = 0;  // bit n-1: signal n
  std::string input_;
  int status_ = 255;
};

}  // namespace tsvmm::exec
