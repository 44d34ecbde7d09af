#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <vector>

#include "io/value.h"

namespace tsvmm::virtio::net {

using MacAddress = std::array<uint8_t, 6>;

/// Which frames the driver wants to get (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3). Until it says so, all.
class FrameFilter {
 public:
  /// How many bytes of a frame accepts() looks at: both addresses and a VLAN tag.
  static constexpr size_t kLooksAt = 18;
  /// More addresses than this are not kept one by one: then all frames of the kind are accepted.
  static constexpr size_t kMaxAddresses = 64;

  enum class Mode : uint8_t {
    kPromiscuous = 0,
    kAllMulticast,
    kAllUnicast,
    kNoMulticast,
    kNoUnicast,
    kNoBroadcast,
    kCount
  };
  struct Table {
    std::vector<MacAddress> addresses;
    bool overflow = false;
  };

  /// As after a reset. With `vlans` only frames of VLANs that were added are accepted, and those without tag.
  void reset(MacAddress mac, bool vlans);

  bool acceptsAll() const { return modes_[static_cast<size_t>(Mode::kPromiscuous)]; }
  bool accepts(std::span<const uint8_t, kLooksAt> start) const;

  const MacAddress& mac() const { return mac_; }
  void setMac(const MacAddress& mac) { mac_ = mac; }
  void setMode(Mode mode, bool on) { modes_[static_cast<size_t>(mode)] = on; }
  void setTables(Table unicast, Table multicast);
  /// `vlan` is below 4096.
  void setVlan(uint16_t vlan, bool wanted) { vlans_[vlan] = wanted; }

  Value save() const;
  /// Throws a ValueError.
  void restore(const Value& state);

 private:
  bool mode(Mode mode) const { return modes_[static_cast<size_t>(mode)]; }

  MacAddress mac_{};
  std::bitset<static_cast<size_t>(Mode::kCount)> modes_;
  Table unicast_;
  Table multicast_;
  bool filtersVlans_ = false;
  std::bitset<4096> vlans_;
};

}  // namespace tsvmm::virtio::net
