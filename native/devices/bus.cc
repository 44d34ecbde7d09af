#include "devices/bus.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace tsvmm {

void Bus::insert(uint64_t base, uint64_t length, std::shared_ptr<BusDevice> device) {
  if (length == 0 || base + length < base) {
    throw std::invalid_argument("a device's range is empty or wraps");
  }
  for (const Range& range : ranges_) {
    if (base < range.base + range.length && range.base < base + length) {
      char text[96];
      std::snprintf(text, sizeof text, "the range at 0x%llx meets the one at 0x%llx",
                    static_cast<unsigned long long>(base), static_cast<unsigned long long>(range.base));
      throw std::invalid_argument(text);
    }
  }
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), base,
                                      [](uint64_t at, const Range& range) { return at < range.base; });
  ranges_.insert(after, Range{base, length, std::move(device)});
}

const Bus::Range* Bus::find(uint64_t address, size_t length) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](uint64_t at, const Range& range) { return at < range.base; });
  if (after == ranges_.begin()) {
    return nullptr;
  }
  const Range& range = *(after - 1);
  const uint64_t offset = address - range.base;
  return offset < range.length && length <= range.length - offset ? &range : nullptr;
}

void Bus::read(uint64_t address, std::span<uint8_t> data) const {
  if (const Range* range = find(address, data.size())) {
    range->device->read(address - range->base, data);
  } else {
    std::memset(data.data(), 0xff, data.size());
  }
}

void Bus::write(uint64_t address, std::span<const uint8_t> data) const {
  if (const Range* range = find(address, data.size())) {
    range->device->write(address - range->base, data);
  }
}

}  // namespace tsvmm
