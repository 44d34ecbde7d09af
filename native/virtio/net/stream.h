#pragma once

#include <memory>
#include <string>

#include "io/fd.h"
#include "virtio/net/backend.h"

namespace tsvmm::virtio::net {

/// A stream socket on which each frame follows its length (32 bits, big-endian), as passt and QEMU's `stream`
/// network speak. It has no offloads, and one pair of queues. `name` is for messages.
std::unique_ptr<Backend> makeStreamBackend(Fd socket, std::string name);

}  // namespace tsvmm::virtio::net
