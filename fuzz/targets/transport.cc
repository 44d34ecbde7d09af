// The virtio-mmio register block (native/virtio/mmio_transport.cc): register accesses of every width and
// value, with a device that echoes.
#include "support/input.h"
#include "support/ring.h"
#include "virtio/mmio_transport.h"

using namespace tsvmm;
using namespace tsvmm::virtio;

namespace {

class Echo : public Device {
 public:
  void activate(Host& host) override { host_ = &host; }
  void notify(uint16_t index) override {
    host_->queue(index).drain([&](Chain& chain) {
      chain.write("!", 1);
      host_->queue(index).push(chain);
      return true;
    });
    host_->signalQueue(index);
  }
  void reset() override { host_ = nullptr; }

 private:
  Host* host_ = nullptr;
};

struct Rig {
  Rig() { loop.start(); }
  ~Rig() { loop.stop(); }
  test::GuestRam ram{1 << 20};
  EventLoop loop;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Rig rig;
  fuzz::Input input(data, size);
  Description description;
  description.name = "fuzz";
  description.deviceId = 1;
  description.features = 0x55;
  description.queueSizes = {16, 256};
  description.config = {1, 2, 3, 4, 5, 6, 7, 8};
  description.writableConfigOffset = 2;
  description.writableConfigLength = 4;
  Value saved;
  MmioTransport transport(
      description, std::make_shared<Echo>(), rig.loop, rig.ram.memory, [] {}, [](int) { return 0; },
      [](TransportEvent, const std::string&) {});
  for (int steps = 0; steps < 400 && !input.done(); steps++) {
    const uint8_t what = input.byte();
    // Registers are 4 bytes apart; now and then an offset between them.
    const uint64_t offset =
        (what & 16) != 0 ? input.take<uint16_t>() % MmioTransport::kSize : input.byte() * 4u;
    uint8_t bytes[8] = {};
    const size_t width = (what & 32) != 0 ? size_t{1} << (what >> 6) : 4;
    switch (what & 15) {
      case 0:
        transport.read(offset, {bytes, width});
        break;
      case 1:
        rig.loop.call([&] { transport.pause([] {}); });
        break;
      case 2:
        rig.loop.call([&] { transport.resume(); });
        break;
      case 3:
        rig.loop.call([&] { transport.pause([&] { saved = transport.save(); }); });
        break;
      case 4:
        rig.loop.call([&] {
          try {
            transport.restore(saved);
          } catch (const ValueError&) {
            // nothing was saved, or the rings are not what they were
          }
        });
        break;
      default: {
        const auto value = input.takeBytes(width);
        std::copy(value.begin(), value.end(), bytes);
        transport.write(offset, {bytes, width});
      }
    }
  }
  rig.loop.call([&] { transport.shutDown(); });
  return 0;
}
