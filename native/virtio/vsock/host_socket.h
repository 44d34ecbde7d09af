#pragma once

#include <sys/stat.h>

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>

#include "io/fd.h"
#include "virtio/vsock/vsock.h"

namespace tsvmm::virtio::vsock {

/// A Unix socket by which programs of the host reach ports of the guest: a client connects, sends `CONNECT
/// PORT\n`, gets `OK HOSTPORT\n` once the guest has accepted, and from then on talks to the guest. Whoever
/// says anything else, takes too long, or asks for a port that nobody listens to is hung up on.
class HostSocket : public std::enable_shared_from_this<HostSocket> {
 public:
  struct Options {
    std::string path;
    size_t maxWaiting = 256;  ///< clients that have not said yet what they want
    std::chrono::milliseconds lineTimeout{5'000};
  };

  /// Makes the socket and listens. A socket file that nobody listens to any more is replaced. Throws
  /// std::system_error.
  explicit HostSocket(Options options);
  ~HostSocket();

  /// Serves clients through `vsock`, while there is a driver. On the I/O thread.
  void attach(const std::shared_ptr<Vsock>& vsock);
  /// Ends that; connections that have been made stay. On the I/O thread.
  void detach();
  /// Removes the socket file, if it is still ours. From any thread; idempotent.
  void unlink();

 private:
  struct Client {
    Fd socket;
    std::string line;
    std::chrono::steady_clock::time_point deadline;
  };

  void loopChanged(EventLoop* loop);
  void accept();
  void retryLater();
  void read(int fd);
  void hangUp(int fd);
  void request(Fd socket, uint32_t port);
  void armTimer();
  void checkDeadlines();

  const Options options_;
  Fd listener_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::weak_ptr<Vsock> vsock_;
  uint64_t watcher_ = 0;
  EventLoop* loop_ = nullptr;
  EventLoop::TimerId timer_ = 0;
  EventLoop::TimerId retry_ = 0;
  std::unordered_map<int, Client> clients_;
};

}  // namespace tsvmm::virtio::vsock
