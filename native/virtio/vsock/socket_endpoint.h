#pragma once

#include <string>

#include "io/fd.h"
#include "virtio/vsock/endpoint.h"

namespace tsvmm::virtio::vsock {

/// A connected stream socket of our own. Never blocks, whatever the socket's flags are (MSG_DONTWAIT). The
/// guest's half-close becomes shutdown(SHUT_WR); the peer's end-of-file is the end of the input.
class SocketEndpoint final : public Endpoint {
 public:
  struct Options {
    /// Whether a peer that closes without a shutdown(SHUT_WR) before has given the connection up. For most
    /// programs closing is how they end.
    bool closingResets = false;
    /// Hears of abort() and gets the socket: as long as it is open, the peer sees no end of its input.
    std::function<void(Fd socket)> onAbort{};
  };

  explicit SocketEndpoint(Fd socket) : socket_(std::move(socket)) {}
  SocketEndpoint(Fd socket, Options options) : socket_(std::move(socket)), options_(std::move(options)) {}
  ~SocketEndpoint() override { SocketEndpoint::close(); }

  void start(EventLoop& loop, std::function<void()> ready) override;
  void close() override;
  void abort() override;
  ssize_t read(std::span<const iovec> to) override;
  ssize_t write(std::span<const iovec> from) override;
  void endRead() override;
  void endWrite() override;
  bool givenUp() const override { return options_.closingResets && outputBroken_; }
  int fd() const { return socket_.get(); }

 private:
  Fd socket_;
  Options options_;
  EventLoop* loop_ = nullptr;
  bool ending_ = false;  ///< the peer has shut its output down, or is gone
  std::function<void()> ready_;
};

/// Connects to the Unix socket at `path` without blocking. Returns 0 and the socket, or an errno: EAGAIN when
/// the listener's backlog is full, ENAMETOOLONG for a path that no socket can have.
int connectUnix(const std::string& path, Fd& socket);

/// recvmsg and sendmsg with MSG_DONTWAIT and MSG_NOSIGNAL; a negative errno on failure. `cut` tells whether
/// descriptors were passed along (and dropped), where a read ends whatever follows.
ssize_t receiveNow(int socket, std::span<const iovec> to, bool* cut = nullptr);
ssize_t sendNow(int socket, std::span<const iovec> from);

}  // namespace tsvmm::virtio::vsock
