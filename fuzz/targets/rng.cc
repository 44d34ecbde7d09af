// The entropy device (native/virtio/rng).
#include "virtio/rng/rng.h"

#include "support/driver.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static tsvmm::fuzz::Driver driver([] { return std::make_shared<tsvmm::virtio::Rng>(); }, {16}, 0);
  return driver.play(data, size);
}
