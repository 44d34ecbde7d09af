#pragma once

#include <cstddef>
#include <cstdint>

namespace tsvmm::virtio::net {

// Virtio 1.2, 5.1.3: feature bits.
inline constexpr uint64_t kFeatureChecksum = uint64_t{1} << 0;              // VIRTIO_NET_F_CSUM
inline constexpr uint64_t kFeatureGuestChecksum = uint64_t{1} << 1;         // VIRTIO_NET_F_GUEST_CSUM
inline constexpr uint64_t kFeatureControlOffloads = uint64_t{1} << 2;       // ..._CTRL_GUEST_OFFLOADS
inline constexpr uint64_t kFeatureMtu = uint64_t{1} << 3;                   // VIRTIO_NET_F_MTU
inline constexpr uint64_t kFeatureMac = uint64_t{1} << 5;                   // VIRTIO_NET_F_MAC
inline constexpr uint64_t kFeatureGuestTso4 = uint64_t{1} << 7;             // VIRTIO_NET_F_GUEST_TSO4
inline constexpr uint64_t kFeatureGuestTso6 = uint64_t{1} << 8;             // VIRTIO_NET_F_GUEST_TSO6
inline constexpr uint64_t kFeatureGuestEcn = uint64_t{1} << 9;              // VIRTIO_NET_F_GUEST_ECN
inline constexpr uint64_t kFeatureGuestUfo = uint64_t{1} << 10;             // VIRTIO_NET_F_GUEST_UFO
inline constexpr uint64_t kFeatureHostTso4 = uint64_t{1} << 11;             // VIRTIO_NET_F_HOST_TSO4
inline constexpr uint64_t kFeatureHostTso6 = uint64_t{1} << 12;             // VIRTIO_NET_F_HOST_TSO6
inline constexpr uint64_t kFeatureHostEcn = uint64_t{1} << 13;              // VIRTIO_NET_F_HOST_ECN
inline constexpr uint64_t kFeatureHostUfo = uint64_t{1} << 14;              // VIRTIO_NET_F_HOST_UFO
inline constexpr uint64_t kFeatureMergeableBuffers = uint64_t{1} << 15;     // VIRTIO_NET_F_MRG_RXBUF
inline constexpr uint64_t kFeatureStatus = uint64_t{1} << 16;               // VIRTIO_NET_F_STATUS
inline constexpr uint64_t kFeatureControlQueue = uint64_t{1} << 17;         // VIRTIO_NET_F_CTRL_VQ
inline constexpr uint64_t kFeatureControlReceive = uint64_t{1} << 18;       // VIRTIO_NET_F_CTRL_RX
inline constexpr uint64_t kFeatureControlVlan = uint64_t{1} << 19;          // VIRTIO_NET_F_CTRL_VLAN
inline constexpr uint64_t kFeatureControlReceiveExtra = uint64_t{1} << 20;  // ..._CTRL_RX_EXTRA
inline constexpr uint64_t kFeatureMultiQueue = uint64_t{1} << 22;           // VIRTIO_NET_F_MQ
inline constexpr uint64_t kFeatureControlMac = uint64_t{1} << 23;           // VIRTIO_NET_F_CTRL_MAC_ADDR

/// What the guest may be given without checksums and segmentation done (5.1.6.3.1); they can be switched by
/// the control queue (5.1.6.5.6.1).
inline constexpr uint64_t kGuestOffloads =
    kFeatureGuestChecksum | kFeatureGuestTso4 | kFeatureGuestTso6 | kFeatureGuestEcn | kFeatureGuestUfo;

/// What precedes each frame in a buffer (5.1.6). num_buffers is there in every device that negotiates
/// VIRTIO_F_VERSION_1.
struct Header {
  uint8_t flags = 0;
  uint8_t gsoType = 0;
  uint16_t headerLength = 0;
  uint16_t gsoSize = 0;
  uint16_t checksumStart = 0;
  uint16_t checksumOffset = 0;
  uint16_t buffers = 0;
};
static_assert(sizeof(Header) == 12);

inline constexpr size_t kBuffersOffset = offsetof(Header, buffers);
inline constexpr size_t kEthernetHeader = 14;
/// The longest frame: 64 KiB of IP packet, as segmentation offload makes them, with Ethernet header and two
/// VLAN tags.
inline constexpr size_t kMaxFrame = 65536 + kEthernetHeader + 8;

/// Checks the header of a frame of `frameSize` bytes from the guest against what it has negotiated and
/// against the frame, and makes of it what a backend can take: unknown flags are dropped, and a hint that
/// cannot be true is corrected (5.1.6.2.2). Returns what is wrong, or nullptr.
const char* checkTransmit(Header& header, uint64_t frameSize, uint64_t features);

}  // namespace tsvmm::virtio::net
