#pragma once

#include <functional>
#include <string>

#include "io/fd.h"
#include "loop.h"
#include "params.h"

namespace tsvmm::agent {

/// The Unix socket on which crun hands over a pseudo terminal's master side (`--console-socket`).
class ConsoleSocket {
 public:
  /// Listens at `path`. Calls `received` once, from the loop, with the master. Throws OperationError.
  ConsoleSocket(Loop& loop, const std::string& path, std::function<void(Fd)> received);
  ~ConsoleSocket();
  ConsoleSocket(const ConsoleSocket&) = delete;
  ConsoleSocket& operator=(const ConsoleSocket&) = delete;

  const std::string& path() const { return path_; }

  /// Takes what has arrived, without waiting. Only needed by one who cannot wait for the loop's next round.
  void poll();

 private:
  void accept();
  void receive();

  Loop& loop_;
  std::string path_;
  std::function<void(Fd)> received_;
  Fd listener_;
  Fd peer_;
};

/// Receives one descriptor (SCM_RIGHTS) from a Unix socket. An empty Fd: none came.
Fd receiveDescriptor(int socket);

/// Sets a terminal's size; its foreground process gets SIGWINCH. False with errno where it is no terminal.
bool setWindowSize(int terminal, WindowSize size);

}  // namespace tsvmm::agent
