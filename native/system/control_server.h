#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/fd.h"

namespace tsvmm::system {

/// The server's side of a control socket: connections that send lines, with descriptors along with them. It
/// has no thread: its owner calls serve() whenever fd() is readable. Everything that a client can make it
/// hold is bounded; a client that breaks a bound is cut off and the others go on.
class ControlServer {
 public:
  static constexpr size_t kMostLine = size_t{4} << 20;
  static constexpr size_t kMostUnread = size_t{8} << 20;
  static constexpr size_t kMostConnections = 1024;

  struct Listener {
    std::function<void(uint32_t id)> onConnection;
    /// `fds` came along with the line, at most kMostDescriptors; who takes none leaves them to be closed.
    std::function<void(uint32_t id, std::string line, std::vector<Fd> fds)> onLine;
    /// The client has closed its side, or was cut off; `id` is gone. Not after close(id).
    std::function<void(uint32_t id)> onEnd;
  };

  explicit ControlServer(Listener listener) : listener_(std::move(listener)) {}

  /// Makes the socket (mode 0600) and listens. Returns 0 or -errno.
  int open(const std::string& path);
  /// Readable while serve() has something to do.
  int fd() const { return epoll_.get(); }
  /// Does what is ready, in bounded steps, and never waits. The listener may call anything of this object but
  /// its destructor.
  void serve();

  /// Sends `line` and a newline. Returns 0; -ENOENT for an id that is gone; -ENOBUFS where the client leaves
  /// more than kMostUnread bytes unread, which cuts it off.
  int send(uint32_t id, std::string_view line);
  /// Closes the connection once the client has got what was sent before.
  void close(uint32_t id);
  /// Closes everything at once. The socket's file stays.
  void stop();

 private:
  struct Connection;

  void accept();
  void receive(const std::shared_ptr<Connection>& connection);
  void deliver(const std::shared_ptr<Connection>& connection);
  /// False where the connection is broken.
  bool flush(Connection& connection);
  void watch(Connection& connection);
  void drop(Connection& connection);
  /// drop(), and the listener is told unless it has closed the connection itself.
  void end(const std::shared_ptr<Connection>& connection);

  Listener listener_;
  Fd epoll_;
  Fd socket_;
  Fd reserve_;  // given up to take and refuse a connection where no descriptor is left
  std::unordered_map<uint32_t, std::shared_ptr<Connection>> connections_;
  uint32_t nextId_ = 1;
};

}  // namespace tsvmm::system
