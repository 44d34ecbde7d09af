#pragma once

#include <cstdint>
#include <string>

#include "io/fd.h"

namespace tsvmm::system {

struct Pty {
  Fd master;
  Fd slave;
};

/// Makes a pseudo-terminal of that size (0: none set), both ends CLOEXEC. The slave's path need not be
/// visible. 0 or -errno.
int openPty(uint16_t rows, uint16_t columns, Pty& pty);

/// Connects to the Unix socket at `path` and sends `fd` there, with `name` as the message: how a runtime
/// hands a console over. Waits at most 10 s. 0 or -errno.
int sendDescriptor(const std::string& path, int fd, const std::string& name);

/// Makes the terminal the calling session's own; the process must be its leader. 0 or -errno.
int takeControllingTerminal(int fd);

}  // namespace tsvmm::system
