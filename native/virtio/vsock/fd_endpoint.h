#pragma once

#include "io/fd.h"
#include "io/inherited_fd.h"
#include "virtio/vsock/endpoint.h"

namespace tsvmm::virtio::vsock {

/// A pair of plain file descriptors, such as the shell's standard streams: pipes, terminals, regular files,
/// /dev/null or sockets, which other processes may share (see InheritedFd).
class FdEndpoint final : public Endpoint {
 public:
  struct Options {
    int read = -1;   ///< open for reading, or -1: there is no input
    int write = -1;  ///< open for writing, or -1: there is no output
    /// Whether the numbers given are the endpoint's to close, which makes the guest's half-close an
    /// end-of-file for whoever reads from the other end. Without, they stay open, as the process has them.
    /// A socket that is given for one direction only may be shared with others: it is closed, but never shut
    /// down.
    bool closeFds = false;
  };

  /// Throws std::system_error if a number is not open, or not for its direction; then nothing was taken.
  explicit FdEndpoint(const Options& options);
  ~FdEndpoint() override { FdEndpoint::close(); }

  void start(EventLoop& loop, std::function<void()> ready) override;
  void close() override;
  ssize_t read(std::span<const iovec> to) override;
  ssize_t write(std::span<const iovec> from) override;
  void endRead() override { closeHalf(input_); }
  void endWrite() override;
  bool hasInput() const override { return hasInput_; }
  bool hasOutput() const override { return hasOutput_; }

 private:
  struct Half {
    InheritedFd fd;
    Fd given;  ///< the number we were given, where it is ours
    bool watched = false;
  };

  void watch(Half& half, uint32_t events);
  void closeHalf(Half& half);

  Half input_;
  Half output_;
  bool hasInput_;
  bool hasOutput_;
  bool ownSocket_;  ///< one descriptor for both directions, and ours
  EventLoop* loop_ = nullptr;
  std::function<void()> ready_;
};

}  // namespace tsvmm::virtio::vsock
