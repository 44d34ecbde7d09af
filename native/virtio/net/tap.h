#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/fd.h"
#include "virtio/net/backend.h"

namespace tsvmm::virtio::net {

struct TapOptions {
  std::string name;    ///< 1 to 15 bytes
  uint16_t pairs = 1;  ///< queues, 1 to 8
  bool up = false;     ///< also bring an existing device up; one that is made here is brought up in any case
};

/// An open TAP device of the host.
struct Tap {
  std::vector<Fd> queues;
  std::string name;
  uint32_t mtu = 0;      ///< as the host has it; 0: not known
  bool created = false;  ///< it was not there before, and vanishes with its last descriptor
};

/// Opens a TAP device, with a virtio_net_hdr before each frame; one that does not exist is made. Throws
/// std::runtime_error: what is wrong, and what to do.
Tap openTap(const TapOptions& options);
/// Takes descriptors of an open TAP device, one a queue. They are duplicated; they must have been opened with
/// IFF_VNET_HDR and become non-blocking. Throws std::runtime_error.
Tap adoptTap(const std::vector<int>& descriptors);

std::unique_ptr<Backend> makeTapBackend(Tap tap);

}  // namespace tsvmm::virtio::net
