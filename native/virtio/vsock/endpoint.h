#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <functional>
#include <memory>
#include <span>

#include "io/event_loop.h"

namespace tsvmm::virtio::vsock {

/// The host's end of a connection: where the guest's bytes go and where bytes for the guest come from. Used
/// on the I/O thread once started; no operation blocks. Readiness is remembered here (epoll reports edges),
/// so that who waits for something else (the guest's credit, a free buffer) need not change what is watched.
class Endpoint : public std::enable_shared_from_this<Endpoint> {
 public:
  virtual ~Endpoint() = default;

  /// Begins to watch. `ready` is called whenever readable(), writable() or outputBroken() may have become
  /// true.
  virtual void start(EventLoop& loop, std::function<void()> ready) = 0;
  /// Ends watching and gives everything up; `ready` is not called any more. Idempotent.
  virtual void close() = 0;
  /// close() of a connection that was cut off rather than ended by both sides: whoever has the other end is
  /// to know, where there is a way.
  virtual void abort() { close(); }

  /// Reads what is there: > 0 bytes, 0 at the end of the input, -EAGAIN (readable() is false now), or another
  /// negative errno.
  virtual ssize_t read(std::span<const iovec> to) = 0;
  /// Writes as much as is taken: > 0 bytes, -EAGAIN (writable() is false now), or another negative errno.
  virtual ssize_t write(std::span<const iovec> from) = 0;
  /// Nothing more will be read.
  virtual void endRead() {}
  /// Nothing more will be written: the other side gets an end-of-file.
  virtual void endWrite() {}

  /// Whether there is an input or an output at all.
  virtual bool hasInput() const { return true; }
  virtual bool hasOutput() const { return true; }

  bool readable() const { return readable_; }
  bool writable() const { return writable_; }
  /// Nobody can ever receive what is written.
  bool outputBroken() const { return outputBroken_; }
  /// At the end of the input: whether it means that the other end was given up rather than finished.
  virtual bool givenUp() const { return false; }

 protected:
  bool readable_ = false;
  bool writable_ = true;  ///< until a write says otherwise
  bool outputBroken_ = false;
};

}  // namespace tsvmm::virtio::vsock
