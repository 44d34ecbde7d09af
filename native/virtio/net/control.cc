#include <cstring>
#include <optional>

#include "virtio/net/net_device.h"

namespace tsvmm::virtio::net {
namespace {

// Virtio 1.2, 5.1.6.5: classes and commands.
constexpr uint8_t kClassReceive = 0;
constexpr uint8_t kClassMac = 1;
constexpr uint8_t kMacTableSet = 0;
constexpr uint8_t kMacAddressSet = 1;
constexpr uint8_t kClassVlan = 2;
constexpr uint8_t kVlanAdd = 0;
constexpr uint8_t kVlanDelete = 1;
constexpr uint8_t kClassMultiQueue = 4;
constexpr uint8_t kPairsSet = 0;
constexpr uint8_t kClassOffloads = 5;
constexpr uint8_t kOffloadsSet = 0;

constexpr uint8_t kOk = 0;
constexpr uint8_t kError = 1;

constexpr uint16_t kVlans = 4096;

/// One table of VIRTIO_NET_CTRL_MAC_TABLE_SET: a count and so many addresses. Nothing if it is not all there.
std::optional<FrameFilter::Table> readTable(Chain& chain) {
  const auto count = chain.read<uint32_t>();
  FrameFilter::Table table;
  if (!count || *count > chain.readableLeft() / sizeof(MacAddress)) {
    return std::nullopt;
  }
  table.overflow = *count > FrameFilter::kMaxAddresses;
  for (uint32_t i = 0; i < *count && !table.overflow; i++) {
    table.addresses.push_back(*chain.read<MacAddress>());
  }
  if (table.overflow) {
    chain.takeReadable(uint64_t{*count} * sizeof(MacAddress));
  }
  return table;
}

}  // namespace

void NetDevice::control() {
  Queue& queue = host_->queue(controlQueue_);
  if (paused_ || !queue.enabled()) {
    return;
  }
  const bool again = queue.drain([&](Chain& chain) {
    const uint8_t status = command(chain) ? kOk : kError;
    if (status != kOk) {
      countDropped();
    }
    chain.write(status);
    queue.push(chain);
    return true;
  });
  host_->signalQueue(controlQueue_);
  if (queue.broken()) {
    checkBroken(controlQueue_);
  } else if (again) {
    come(controlQueue_);
  }
}

bool NetDevice::command(Chain& chain) {
  const auto type = chain.read<std::array<uint8_t, 2>>();
  if (!type) {
    return false;
  }
  const auto [kind, command] = *type;
  switch (kind) {
    case kClassReceive:
      return setReceiveMode(command, chain);
    case kClassMac:
      return command == kMacTableSet     ? setMacTables(chain)
             : command == kMacAddressSet ? setMac(chain)
                                         : false;
    case kClassVlan:
      return setVlan(command, chain);
    case kClassMultiQueue:
      return command == kPairsSet && setPairs(chain);
    case kClassOffloads:
      return command == kOffloadsSet && setOffloads(chain);
    default:
      return false;
  }
}

bool NetDevice::setReceiveMode(uint8_t command, Chain& chain) {
  const auto on = chain.read<uint8_t>();
  const auto mode = static_cast<FrameFilter::Mode>(command);
  const uint64_t needed =
      mode > FrameFilter::Mode::kAllMulticast ? kFeatureControlReceiveExtra : kFeatureControlReceive;
  if (!on || mode >= FrameFilter::Mode::kCount || !negotiated(needed)) {
    return false;
  }
  filter_.setMode(mode, *on != 0);
  return true;
}

bool NetDevice::setMacTables(Chain& chain) {
  auto unicast = readTable(chain);
  auto multicast = unicast ? readTable(chain) : std::nullopt;
  if (!multicast || !negotiated(kFeatureControlReceive)) {
    return false;
  }
  filter_.setTables(std::move(*unicast), std::move(*multicast));
  return true;
}

bool NetDevice::setMac(Chain& chain) {
  const auto mac = chain.read<MacAddress>();
  if (!mac || !negotiated(kFeatureControlMac)) {
    return false;
  }
  filter_.setMac(*mac);
  host_->updateConfig(0, *mac);
  return true;
}

bool NetDevice::setVlan(uint8_t command, Chain& chain) {
  const auto vlan = chain.read<uint16_t>();
  if (!vlan || *vlan >= kVlans || (command != kVlanAdd && command != kVlanDelete) ||
      !negotiated(kFeatureControlVlan)) {
    return false;
  }
  filter_.setVlan(*vlan, command == kVlanAdd);
  return true;
}

bool NetDevice::setPairs(Chain& chain) {
  const auto pairs = chain.read<uint16_t>();
  if (!pairs || *pairs == 0 || *pairs > pairs_.size() || !negotiated(kFeatureMultiQueue)) {
    return false;
  }
  usePairs(*pairs);
  return true;
}

bool NetDevice::setOffloads(Chain& chain) {
  const auto offloads = chain.read<uint64_t>();
  if (!offloads || !negotiated(kFeatureControlOffloads) || (*offloads & ~(features_ & kGuestOffloads)) != 0) {
    return false;
  }
  applyOffloads(*offloads);
  return true;
}

}  // namespace tsvmm::virtio::net
