// The console device with three ports (native/virtio/console).
#include "virtio/console/console.h"

#include "support/driver.h"

using namespace tsvmm;

namespace {

/// Takes everything but now and then.
class Sink final : public ByteSink {
 public:
  ssize_t writev(const iovec* parts, int count) override {
    if (++writes_ % 5 == 0) {
      return -EAGAIN;
    }
    size_t length = 0;
    for (int i = 0; i < count; i++) {
      length += parts[i].iov_len;
    }
    return static_cast<ssize_t>(length);
  }
  void awaitWritable(EventLoop& loop, std::function<void()> ready) override {
    ready_ = std::make_shared<std::function<void()>>(std::move(ready));
    loop.post([weak = std::weak_ptr(ready_)] {
      if (const auto call = weak.lock()) {
        (*call)();
      }
    });
  }
  void cancel() override { ready_.reset(); }

 private:
  std::shared_ptr<std::function<void()>> ready_;
  int writes_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::Driver driver(
      [] {
        std::vector<virtio::ConsolePortOptions> ports(3);
        for (virtio::ConsolePortOptions& port : ports) {
          auto source = std::make_unique<PushSource>();
          source->push("typed", 5);
          port.source = std::move(source);
          port.sink = std::make_unique<Sink>();
          port.name = "port";
        }
        ports[0].console = true;
        ports[0].columns = 80;
        return std::make_shared<virtio::Console>(
            std::move(ports), [] {}, std::chrono::milliseconds(0));
      },
      {16, 16, 16, 16, 16, 16, 16, 16}, virtio::Console::kFeatureSize | virtio::Console::kFeatureMultiport);
  return driver.play(data, size);
}
