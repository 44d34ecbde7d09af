#pragma once

#include <functional>
#include <string>

#include "io/fd.h"
#include "loop.h"
#include "rpc.h"

namespace tsvmm::agent {

/// The control connection: whole lines in, whole lines out, neither blocking nor without a limit.
class Control {
 public:
  struct Events {
    std::function<void(std::string_view line)> line;
    /// Once: the connection is of no more use. The reason is for people.
    std::function<void(const std::string& reason)> closed;
  };

  /// Takes a connection that may still be being made. Throws OperationError.
  Control(Loop& loop, Fd connection, Events events);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  /// Sends what fits now, and the rest as the host reads.
  void send(const std::string& message);

 private:
  void onEvents(std::uint32_t events);
  void receive();
  void flush();
  void close(const std::string& reason);

  Loop& loop_;
  Fd connection_;
  Events events_;
  LineReader reader_;
  std::string unsent_;
  bool connected_ = false;
  bool closed_ = false;
};

}  // namespace tsvmm::agent
