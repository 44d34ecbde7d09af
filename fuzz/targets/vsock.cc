// The socket device (native/virtio/vsock): packets with a good header or a wild one, and a listener that
// reads and writes.
#include "virtio/vsock/vsock.h"

#include "support/driver.h"
#include "virtio/vsock/endpoint.h"

using namespace tsvmm;
using namespace tsvmm::virtio::vsock;

namespace {

/// Takes some of what comes, gives some bytes, then ends.
class Peer final : public Endpoint {
 public:
  void start(EventLoop&, std::function<void()>) override { readable_ = true; }
  void close() override {}
  ssize_t read(std::span<const iovec> to) override {
    size_t length = 0;
    for (const iovec& part : to) {
      const size_t take = std::min(part.iov_len, left_);
      std::memset(part.iov_base, 'p', take);
      left_ -= take;
      length += take;
    }
    return static_cast<ssize_t>(length);
  }
  ssize_t write(std::span<const iovec> from) override {
    if (++writes_ % 3 == 0) {
      writable_ = false;
      return -EAGAIN;
    }
    return from.empty() ? 0 : static_cast<ssize_t>(std::max<size_t>(from.front().iov_len, 1));
  }

 private:
  size_t left_ = 10'000;
  int writes_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::Driver driver(
      [] {
        auto device = std::make_shared<Vsock>(Vsock::Options{.maxConnections = 8});
        device->submit([device = device.get()] {
          device->listen(1024, [](uint32_t) { return std::make_shared<Peer>(); });
        });
        return device;
      },
      {16, 16, 8}, 3);
  return driver.play(data, size);
}
