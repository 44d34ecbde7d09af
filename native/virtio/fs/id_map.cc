#include "virtio/fs/id_map.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace tsvmm::virtio::fs {
namespace {

bool meet(uint32_t first, uint32_t count, uint32_t otherFirst, uint32_t otherCount) {
  return first < uint64_t{otherFirst} + otherCount && otherFirst < uint64_t{first} + count;
}

[[noreturn]] void refuse(size_t index, const char* why) {
  throw std::invalid_argument("range " + std::to_string(index) + " of an id map " + why);
}

}  // namespace

IdMap::IdMap(std::vector<IdRange> ranges) : ranges_(std::move(ranges)) {
  if (ranges_.empty() || ranges_.size() > kMaxRanges) {
    throw std::invalid_argument("an id map has 1 to " + std::to_string(kMaxRanges) + " ranges, not " +
                                std::to_string(ranges_.size()));
  }
  for (size_t i = 0; i < ranges_.size(); i++) {
    const IdRange& range = ranges_[i];
    if (range.count == 0) {
      refuse(i, "is empty");
    }
    if (uint64_t{range.guest} + range.count > UINT32_MAX || uint64_t{range.host} + range.count > UINT32_MAX) {
      refuse(i, "reaches beyond the last id");
    }
    for (size_t j = 0; j < i; j++) {
      const IdRange& other = ranges_[j];
      if (meet(range.guest, range.count, other.guest, other.count) ||
          meet(range.host, range.count, other.host, other.count)) {
        refuse(i, "meets another");
      }
    }
  }
}

std::optional<uint32_t> IdMap::toHost(uint32_t guest) const {
  if (ranges_.empty()) {
    return guest;
  }
  for (const IdRange& range : ranges_) {
    if (guest >= range.guest && guest - range.guest < range.count) {
      return range.host + (guest - range.guest);
    }
  }
  return std::nullopt;
}

std::optional<uint32_t> IdMap::find(uint32_t host) const {
  if (ranges_.empty()) {
    return host;
  }
  for (const IdRange& range : ranges_) {
    if (host >= range.host && host - range.host < range.count) {
      return range.guest + (host - range.host);
    }
  }
  return std::nullopt;
}

}  // namespace tsvmm::virtio::fs
