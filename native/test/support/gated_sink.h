#pragma once

#include <algorithm>
#include <cerrno>
#include <functional>
#include <string>
#include <utility>

#include "io/byte_stream.h"

namespace tsvmm::test {

/// Takes what the test allows.
class GatedSink final : public ByteSink {
 public:
  ssize_t writev(const iovec* parts, int count) override {
    if (error != 0) {
      return -error;
    }
    ssize_t taken = 0;
    for (int i = 0; i < count && allowed != 0; i++) {
      const size_t step = std::min(allowed, parts[i].iov_len);
      bytes.append(static_cast<const char*>(parts[i].iov_base), step);
      allowed -= step;
      taken += static_cast<ssize_t>(step);
    }
    return taken == 0 ? -EAGAIN : taken;
  }
  void awaitWritable(EventLoop&, std::function<void()> callback) override { ready = std::move(callback); }
  void cancel() override { ready = {}; }
  void allow(size_t count) {
    allowed += count;
    if (const auto callback = std::exchange(ready, {})) {
      callback();
    }
  }

  size_t allowed = 0;
  int error = 0;
  std::string bytes;
  std::function<void()> ready;
};

}  // namespace tsvmm::test
