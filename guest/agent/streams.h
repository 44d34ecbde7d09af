#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "io/fd.h"
#include "loop.h"

namespace tsvmm::agent {

/// What a relay's end is, which decides how its closing is seen and shown.
enum class EndKind {
  kPipe,
  /// A vsock connection (or, in tests, any stream socket): ended by a half-close.
  kSocket,
  /// A pseudo terminal's master: EIO is its end of file, and ^D its way to tell one.
  kTerminal,
};

struct RelayEnd {
  Fd fd;
  EndKind kind;
};

/// Moves bytes one way from a source to a sink, unchanged and in order, with one buffer between. Reads no
/// more than the sink takes. A source that ends ends the sink; a sink that is closed closes the source, so
/// that a writer gets its SIGPIPE. Both descriptors are made non-blocking.
class Relay {
 public:
  /// `done` is called once, from the loop, when nothing will be moved any more; both ends are closed then.
  /// Throws OperationError where a descriptor cannot be watched.
  Relay(Loop& loop, RelayEnd source, RelayEnd sink, std::function<void()> done);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  /// Ends it now, whatever is still on its way. `done` follows.
  void abort();
  /// Ends it when what the source holds now has been moved, though others may still write to it. For a pipe;
  /// a terminal hangs up by itself. `done` follows.
  void drain();

 private:
  void onSource();
  void onSink(std::uint32_t events);
  /// Writes the buffer. False when some of it stays.
  bool flush();
  bool sinkIsClosed() const;
  void endSink();
  /// Watches what the state asks for, or finishes.
  void update();
  void finish();

  Loop& loop_;
  RelayEnd source_;
  RelayEnd sink_;
  std::function<void()> done_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  /// How many bytes are still to be read, where that is limited.
  std::optional<std::size_t> left_;
  bool sourceEnded_ = false;
  bool sinkClosed_ = false;
  bool finished_ = false;
  /// Whether the sink's peer has half-closed its own direction, which says nothing about ours.
  bool ignoreHalfClose_ = false;
};

/// Opens /dev/null for both directions. Throws OperationError.
Fd openNull();
/// A non-blocking, close-on-exec vsock connection to the host's `port`, still being made.
/// Throws OperationError.
Fd startConnect(std::uint32_t port);
/// Waits until the connection is made. Throws OperationError; `name` says which connection it is.
void finishConnect(int fd, const char* name);

}  // namespace tsvmm::agent
