#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <functional>
#include <memory>

#include "io/event_loop.h"
#include "io/inherited_fd.h"

namespace tsvmm {

/// Where a console's bytes go. On the I/O thread only. Nothing is buffered here: what a sink does not take
/// stays with the caller, who waits for it.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  /// Bytes taken, from the front; -EAGAIN where it would have to wait; or another negative errno: nobody will
  /// ever take anything (the reader has gone, the disk is full).
  virtual ssize_t writev(const iovec* parts, int count) = 0;
  /// Calls `ready` once, later, when writing is worth another try. One wait at a time.
  virtual void awaitWritable(EventLoop& loop, std::function<void()> ready) = 0;
  /// Forgets the wait. Whoever has called awaitWritable() cancels before the sink or the loop goes.
  virtual void cancel() = 0;
};

/// Where a console's bytes come from. On the I/O thread only.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Bytes read; 0 at the end; -EAGAIN where it would have to wait; or another negative errno, which is an
  /// end too.
  virtual ssize_t readv(const iovec* parts, int count) = 0;
  /// Calls `ready` once, later, when reading is worth another try. One wait at a time.
  virtual void awaitReadable(EventLoop& loop, std::function<void()> ready) = 0;
  /// Forgets the wait. Whoever has called awaitReadable() cancels before the source or the loop goes.
  virtual void cancel() = 0;
};

/// One-shot readiness of a descriptor: by epoll, or at once where the descriptor is always ready.
class FdWait {
 public:
  void await(EventLoop& loop, const InheritedFd& fd, uint32_t events, std::function<void()> ready);
  /// Without asking the descriptor: after a while.
  void awaitLater(EventLoop& loop, std::function<void()> ready);
  void cancel();

 private:
  struct State {
    std::function<void()> ready;
  };
  static void fire(const std::weak_ptr<State>& state);

  EventLoop* loop_ = nullptr;
  int watched_ = -1;
  std::shared_ptr<State> state_;
};

class FdSink final : public ByteSink {
 public:
  /// Throws std::system_error if `fd` is not open for writing. The sink has a descriptor of its own.
  explicit FdSink(int fd) : fd_(fd, InheritedFd::Direction::kWrite) {}
  ssize_t writev(const iovec* parts, int count) override { return fd_.writev(parts, count); }
  void awaitWritable(EventLoop& loop, std::function<void()> ready) override {
    wait_.await(loop, fd_, EPOLLOUT, std::move(ready));
  }
  void cancel() override { wait_.cancel(); }

 private:
  InheritedFd fd_;
  FdWait wait_;
};

class FdSource final : public ByteSource {
 public:
  /// Throws std::system_error if `fd` is not open for reading. The source has a descriptor of its own.
  explicit FdSource(int fd) : fd_(fd, InheritedFd::Direction::kRead) {}
  ssize_t readv(const iovec* parts, int count) override;
  void awaitReadable(EventLoop& loop, std::function<void()> ready) override;
  void cancel() override { wait_.cancel(); }

 private:
  InheritedFd fd_;
  FdWait wait_;
  bool inBackground_ = false;
};

/// A source that other threads fill, bounded: what does not fit is not taken.
class PushSource final : public ByteSource {
 public:
  /// `onRoom` is called, on the I/O thread, when there is room again after push() has taken less than it was
  /// given.
  explicit PushSource(size_t limit = 64 << 10, std::function<void()> onRoom = {});

  /// Takes as many of `length` bytes as there is room for and says how many; none after end(). From any
  /// thread.
  size_t push(const void* bytes, size_t length);
  /// No more will come. From any thread.
  void end();

  ssize_t readv(const iovec* parts, int count) override;
  void awaitReadable(EventLoop& loop, std::function<void()> ready) override;
  void cancel() override;

 private:
  /// Shared with functions on their way through the loop.
  struct State {
    std::mutex mutex;
    EventLoop* loop = nullptr;  // while somebody waits
    std::function<void()> ready;
  };
  void wake();

  const size_t limit_;
  const std::function<void()> onRoom_;
  std::mutex mutex_;
  std::vector<uint8_t> bytes_;
  size_t head_ = 0;
  bool ended_ = false;
  bool roomWanted_ = false;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace tsvmm
