// The split virtqueue (native/virtio/queue.cc): guest memory is the fuzzer's bytes, the rings anywhere in it.
#include "virtio/queue.h"

#include "support/input.h"
#include "virtio/device.h"

using namespace tsvmm;
using namespace tsvmm::virtio;

namespace {
constexpr uint64_t kRam = 64 << 10;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const GuestMemory memory({{0, kRam}},
                                  {.backing = GuestMemory::Backing::kAnonymous, .hugePages = false});
  fuzz::Input input(data, size);
  QueueConfig config;
  config.size = input.take<uint16_t>();
  config.ready = true;
  config.descriptors = input.take<uint32_t>();
  config.available = input.take<uint32_t>();
  config.used = input.take<uint32_t>();
  const uint64_t features =
      kFeatureVersion1 | (input.chance() ? kFeatureIndirect : 0) | (input.chance() ? kFeatureEventIndex : 0);
  const auto steps = input.takeBytes(64);
  const GuestSlice ram = *memory.slice(0, kRam);
  ram.fill(0);
  const auto image = input.takeBytes(kRam);
  ram.write(0, image.data(), image.size());

  Queue queue;
  if (queue.configure(memory, config, 1024, features) != nullptr) {
    return 0;
  }
  std::vector<uint16_t> heads;
  Chain chain;
  for (const uint8_t step : steps) {
    switch (step % 8) {
      case 0:
        queue.enableNotifications();
        break;
      case 1:
        queue.disableNotifications();
        break;
      case 2:
        queue.needsInterrupt();
        break;
      case 3:
        if (!heads.empty()) {
          queue.push(heads.back(), step);
          heads.pop_back();
        }
        break;
      case 4:
        queue.setState(queue.state());
        break;
      default:
        if (queue.pop(chain) == Queue::Pop::kChain) {
          if (queue.inFlight() > queue.size()) {
            __builtin_trap();
          }
          // Every byte that the chain offers can be read and written.
          for (const iovec& part : chain.takeReadable(UINT64_MAX)) {
            volatile uint8_t byte = static_cast<uint8_t*>(part.iov_base)[part.iov_len - 1];
            (void)byte;
          }
          for (const iovec& part : chain.writableIovecs(UINT64_MAX)) {
            static_cast<uint8_t*>(part.iov_base)[part.iov_len - 1] = 1;
          }
          if (step % 8 == 7) {
            queue.undoPop();
          } else {
            heads.push_back(chain.head());
          }
        }
    }
  }
  return 0;
}
