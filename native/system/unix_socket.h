#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/fd.h"

namespace tsvmm::system {

/// Most descriptors that one message may carry.
constexpr size_t kMostDescriptors = 64;

/// Connects a new stream socket (CLOEXEC, blocking) to the Unix socket at `path`, of any length.
/// `timeoutMs`: for a listener with a full backlog, and for each send later; 0 waits without limit.
/// Returns 0 or -errno (-EAGAIN after the time).
int connectUnix(const std::string& path, unsigned timeoutMs, Fd& connected);

/// Makes a listening socket (CLOEXEC, non-blocking) at `path`, of mode 0600. Returns 0 or -errno (-EADDRINUSE
/// where something is there).
int listenUnix(const std::string& path, Fd& listening);

/// Sends all of `bytes`, with `fds` along with the first of them. Blocking sockets only. Returns 0 or -errno.
int sendWithFds(int socket, std::string_view bytes, const std::vector<int>& fds);

/// One recvmsg(2): bytes, 0 at the end, or -errno. Descriptors (CLOEXEC) are added to `fds`; -EMSGSIZE where
/// there would then be more than kMostDescriptors.
ssize_t receiveWithFds(int socket, void* to, size_t size, int flags, std::vector<Fd>& fds);

}  // namespace tsvmm::system
