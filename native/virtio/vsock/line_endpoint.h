#pragma once

#include <atomic>
#include <string>

#include "virtio/vsock/byte_queue.h"
#include "virtio/vsock/endpoint.h"

namespace tsvmm::virtio::vsock {

/// A connection whose bytes are lines: each complete one is handed over as a whole, without its newline. For
/// control messages; a consumer that falls behind holds the guest back (see consumed()).
class LineEndpoint final : public Endpoint {
 public:
  struct Options {
    size_t maxLine = 4 << 20;  ///< bytes, without the newline; a longer line breaks the connection
    /// What may wait for the guest to read it: more breaks the connection.
    size_t maxQueued = 16 << 20;
    std::function<void(std::string line)> onLine{};
    /// The guest's connection was accepted.
    std::function<void()> onOpen{};
  };

  explicit LineEndpoint(Options options) : options_(std::move(options)) {}

  void start(EventLoop& loop, std::function<void()> ready) override;
  void close() override { closed_ = true; }
  ssize_t read(std::span<const iovec> to) override;
  ssize_t write(std::span<const iovec> from) override;

  /// Queues bytes for the guest; a newline, where wanted, is part of them. On the I/O thread.
  void send(const std::string& bytes);
  /// Ends the connection once what was sent has gone. On the I/O thread.
  void finish();
  /// `bytes` of a line (as it was handed over) have been dealt with. From any thread. Returns true if the
  /// guest was held back for it: then resume() is to be called on the I/O thread.
  bool consumed(size_t bytes);
  void resume();
  /// Why the connection was broken, if it was.
  const char* failure() const { return failure_; }

 private:
  /// What may be handed over and not yet consumed; each line counts with kLineOverhead on top.
  static constexpr size_t kMaxOutstanding = 1 << 20;
  static constexpr size_t kLineOverhead = 128;

  void fail(const char* reason);
  bool append(const char* bytes, size_t length);

  Options options_;
  ByteQueue queue_;
  std::string line_;
  std::function<void()> ready_;
  std::atomic<size_t> outstanding_{0};
  std::atomic<bool> held_{false};
  bool closed_ = false;
  bool finishing_ = false;
  const char* failure_ = nullptr;
};

}  // namespace tsvmm::virtio::vsock
