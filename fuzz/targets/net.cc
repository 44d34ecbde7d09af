// The network device with two pairs of queues and a control queue (native/virtio/net).
#include <sys/eventfd.h>

#include <deque>

#include "support/driver.h"
#include "virtio/net/net_device.h"

using namespace tsvmm;
namespace net = virtio::net;

namespace {

/// A network that sends everything back, some of it much longer, and has no room now and then.
class Echo final : public net::Backend {
 public:
  Echo() : ready_{Fd(eventfd(0, EFD_NONBLOCK)), Fd(eventfd(0, EFD_NONBLOCK))} {}

  uint16_t pairs() const override { return 2; }
  int descriptor(uint16_t pair) const override { return ready_[pair].get(); }

  ssize_t read(uint16_t pair, std::span<const iovec> parts) override {
    if (frames_[pair].empty()) {
      return -EAGAIN;
    }
    const std::vector<uint8_t> frame = std::move(frames_[pair].front());
    frames_[pair].pop_front();
    size_t done = 0;
    for (const iovec& part : parts) {
      const size_t length = std::min(part.iov_len, frame.size() - done);
      std::memcpy(part.iov_base, frame.data() + done, length);
      done += length;
    }
    return static_cast<ssize_t>(done);
  }

  int write(uint16_t pair, const net::Header& header, std::span<iovec> parts, size_t size) override {
    if (++writes_ % 7 == 0) {
      return -EAGAIN;
    }
    if (frames_[pair].size() < 16) {
      parts[0] = {const_cast<net::Header*>(&header), sizeof header};
      std::vector<uint8_t> frame;
      for (const iovec& part : parts) {
        const auto* from = static_cast<const uint8_t*>(part.iov_base);
        frame.insert(frame.end(), from, from + part.iov_len);
      }
      if (frame.size() != sizeof header + size) {
        __builtin_trap();
      }
      if (writes_ % 3 == 0) {
        frame.resize(sizeof header + 60'000);
      }
      frames_[pair].push_back(std::move(frame));
      eventfd_write(ready_[pair].get(), 1);
    }
    return 0;
  }

  bool gone(int) const override { return false; }
  std::string name() const override { return "echo"; }

 private:
  std::array<Fd, 2> ready_;
  std::array<std::deque<std::vector<uint8_t>>, 2> frames_;
  uint32_t writes_ = 0;
};

constexpr uint64_t kFeatures =
    net::kFeatureMergeableBuffers | net::kFeatureControlQueue | net::kFeatureControlReceive |
    net::kFeatureControlReceiveExtra | net::kFeatureControlVlan | net::kFeatureControlMac |
    net::kFeatureMultiQueue | net::kFeatureControlOffloads | net::kFeatureChecksum | net::kFeatureHostTso4 |
    net::kFeatureHostTso6 | net::kFeatureHostEcn | net::kFeatureHostUfo | net::kGuestOffloads;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::Driver driver(
      [] { return std::make_shared<net::NetDevice>(std::make_unique<Echo>(), net::NetOptions{}); },
      {16, 16, 16, 16, 16}, kFeatures);
  return driver.play(data, size);
}
