#include "virtio/net/header.h"

#include <algorithm>

namespace tsvmm::virtio::net {
namespace {

// Virtio 1.2, 5.1.6.
constexpr uint8_t kNeedsChecksum = 1;
constexpr uint8_t kGsoNone = 0;
constexpr uint8_t kGsoTcp4 = 1;
constexpr uint8_t kGsoUdp = 3;
constexpr uint8_t kGsoTcp6 = 4;
constexpr uint8_t kGsoEcn = 0x80;

uint64_t featureOf(uint8_t gsoType) {
  switch (gsoType) {
    case kGsoTcp4:
      return kFeatureHostTso4;
    case kGsoTcp6:
      return kFeatureHostTso6;
    case kGsoUdp:
      return kFeatureHostUfo;
    default:
      return 0;
  }
}

}  // namespace

const char* checkTransmit(Header& header, uint64_t frameSize, uint64_t features) {
  if (frameSize < kEthernetHeader || frameSize > kMaxFrame) {
    return "a frame is shorter than an Ethernet header or longer than 64 KiB";
  }
  header.flags &= kNeedsChecksum;
  header.buffers = 0;
  header.headerLength = static_cast<uint16_t>(std::min<uint64_t>(header.headerLength, frameSize));
  if (header.flags != 0) {
    if ((features & kFeatureChecksum) == 0) {
      return "a checksum is asked for that was not negotiated";
    }
    if (uint64_t{header.checksumStart} + header.checksumOffset + sizeof(uint16_t) > frameSize) {
      return "a checksum's place is outside its frame";
    }
  } else {
    header.checksumStart = header.checksumOffset = 0;
  }
  if (header.gsoType == kGsoNone) {
    header.gsoSize = 0;
    return nullptr;
  }
  const uint64_t needed = featureOf(header.gsoType & ~kGsoEcn);
  if (needed == 0 || (features & needed) == 0 || (features & kFeatureChecksum) == 0 ||
      ((header.gsoType & kGsoEcn) != 0 && (features & kFeatureHostEcn) == 0)) {
    return "a segmentation is asked for that was not negotiated";
  }
  if (header.flags == 0 || header.gsoSize == 0) {
    return "a segmentation is asked for without a checksum or a size";
  }
  return nullptr;
}

}  // namespace tsvmm::virtio::net
