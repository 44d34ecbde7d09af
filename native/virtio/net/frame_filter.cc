#include "virtio/net/frame_filter.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace tsvmm::virtio::net {
namespace {

constexpr MacAddress kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

bool contains(const FrameFilter::Table& table, const MacAddress& mac) {
  return table.overflow ||
         std::find(table.addresses.begin(), table.addresses.end(), mac) != table.addresses.end();
}

Value saveTable(const FrameFilter::Table& table) {
  Value::Bytes bytes;
  for (const MacAddress& mac : table.addresses) {
    bytes.insert(bytes.end(), mac.begin(), mac.end());
  }
  return Value::Record{{"addresses", std::move(bytes)}, {"overflow", table.overflow}};
}

FrameFilter::Table restoreTable(const Value& value) {
  FrameFilter::Table table;
  const Value::Bytes& bytes = value.bytes("addresses");
  table.overflow = value.boolean("overflow");
  if (bytes.size() % sizeof(MacAddress) != 0 ||
      bytes.size() > FrameFilter::kMaxAddresses * sizeof(MacAddress)) {
    throw ValueError("addresses: expected at most " + std::to_string(FrameFilter::kMaxAddresses) +
                     " addresses of 6 bytes, got " + std::to_string(bytes.size()) + " bytes");
  }
  for (size_t i = 0; i < bytes.size(); i += sizeof(MacAddress)) {
    MacAddress& mac = table.addresses.emplace_back();
    std::memcpy(mac.data(), bytes.data() + i, mac.size());
  }
  return table;
}

}  // namespace

void FrameFilter::reset(MacAddress mac, bool vlans) {
  *this = FrameFilter();
  mac_ = mac;
  filtersVlans_ = vlans;
  setMode(Mode::kPromiscuous, true);
}

bool FrameFilter::accepts(std::span<const uint8_t, kLooksAt> start) const {
  if (mode(Mode::kPromiscuous)) {
    return true;
  }
  const bool tagged = start[12] == 0x81 && start[13] == 0x00;  // 802.1Q
  if (filtersVlans_ && tagged && !vlans_[(start[14] & 0x0f) << 8 | start[15]]) {
    return false;
  }
  MacAddress to;
  std::copy_n(start.begin(), to.size(), to.begin());
  if (to == kBroadcast) {
    return !mode(Mode::kNoBroadcast);
  }
  if ((to[0] & 1) != 0) {
    return !mode(Mode::kNoMulticast) && (mode(Mode::kAllMulticast) || contains(multicast_, to));
  }
  return !mode(Mode::kNoUnicast) && (mode(Mode::kAllUnicast) || to == mac_ || contains(unicast_, to));
}

void FrameFilter::setTables(Table unicast, Table multicast) {
  unicast_ = std::move(unicast);
  multicast_ = std::move(multicast);
}

Value FrameFilter::save() const {
  Value::Bytes vlans(vlans_.size() / 8);
  for (size_t i = 0; i < vlans_.size(); i++) {
    if (vlans_[i]) {
      vlans[i / 8] = static_cast<uint8_t>(vlans[i / 8] | 1u << (i % 8));
    }
  }
  return Value::Record{{"mac", Value::Bytes(mac_.begin(), mac_.end())},
                       {"modes", static_cast<uint32_t>(modes_.to_ulong())},
                       {"unicast", saveTable(unicast_)},
                       {"multicast", saveTable(multicast_)},
                       {"filtersVlans", filtersVlans_},
                       {"vlans", std::move(vlans)}};
}

void FrameFilter::restore(const Value& state) {
  FrameFilter restored;
  const Value::Bytes& mac = state.bytes("mac");
  const Value::Bytes& vlans = state.bytes("vlans");
  if (mac.size() != mac_.size()) {
    throw ValueError("mac: expected 6 bytes, got " + std::to_string(mac.size()));
  }
  if (vlans.size() != vlans_.size() / 8) {
    throw ValueError("vlans: expected 512 bytes, got " + std::to_string(vlans.size()));
  }
  std::copy(mac.begin(), mac.end(), restored.mac_.begin());
  restored.modes_ = state.integer("modes", (1u << modes_.size()) - 1);
  restored.setTables(restoreTable(state.at("unicast")), restoreTable(state.at("multicast")));
  restored.filtersVlans_ = state.boolean("filtersVlans");
  for (size_t i = 0; i < vlans_.size(); i++) {
    restored.vlans_[i] = (vlans[i / 8] >> (i % 8) & 1) != 0;
  }
  *this = std::move(restored);
}

}  // namespace tsvmm::virtio::net
