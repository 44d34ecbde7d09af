// The memory balloon (native/virtio/balloon).
#include "virtio/balloon/balloon.h"

#include "support/driver.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using tsvmm::virtio::Balloon;
  static tsvmm::fuzz::Driver driver(
      [] {
        auto balloon = std::make_shared<Balloon>([] {}, 100u);
        balloon->requestStatistics();
        balloon->setTarget(200);
        return balloon;
      },
      {16, 16, 8, 8, 16},
      Balloon::kFeatureStatistics | Balloon::kFeatureDeflateOnOom | Balloon::kFeaturePoison |
          Balloon::kFeatureReporting,
      16);
  return driver.play(data, size);
}
