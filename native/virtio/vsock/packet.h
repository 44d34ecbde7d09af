#pragma once

#include <cstdint>

namespace tsvmm::virtio::vsock {

// Fields are little-endian, as the machine is.

/// What precedes every packet (virtio 1.2, 5.10.6).
struct [[gnu::packed]] Header {
  uint64_t sourceCid = 0;
  uint64_t destinationCid = 0;
  uint32_t sourcePort = 0;
  uint32_t destinationPort = 0;
  uint32_t length = 0;  ///< bytes of payload
  uint16_t type = 0;
  uint16_t operation = 0;
  uint32_t flags = 0;
  uint32_t bufferSize = 0;      ///< buf_alloc: the sender's whole receive buffer for this stream, in bytes
  uint32_t forwardedCount = 0;  ///< fwd_cnt: how many received bytes have left that buffer, modulo 2^32
};
static_assert(sizeof(Header) == 44);

enum Operation : uint16_t {
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kReadWrite = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};

inline constexpr uint16_t kStream = 1;
inline constexpr uint64_t kHostCid = 2;

// Flags of kShutdown: what its sender will do no more.
inline constexpr uint32_t kNoReceive = 1;
inline constexpr uint32_t kNoSend = 2;
inline constexpr uint32_t kNoBoth = kNoReceive | kNoSend;

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (5.10.6.7): all connections are gone and the guest's CID may have
/// changed.
inline constexpr uint32_t kTransportReset = 0;

}  // namespace tsvmm::virtio::vsock
