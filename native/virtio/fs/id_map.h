#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace tsvmm::virtio::fs {

/// As a line of /proc/PID/uid_map: `count` ids from `guest` on are the host's from `host` on.
struct IdRange {
  uint32_t guest = 0;
  uint32_t host = 0;
  uint32_t count = 0;
};

/// Which user (or group) of the host a user of the guest is. Means what a user namespace means: what is not
/// mapped shows as the overflow id and cannot be given to anything.
class IdMap {
 public:
  static constexpr uint32_t kOverflow = 65534;  ///< as /proc/sys/kernel/overflowuid
  static constexpr size_t kMaxRanges = 340;     ///< as user_namespaces(7)

  /// Every id is itself.
  IdMap() = default;
  /// Throws std::invalid_argument where a range is empty, reaches beyond 2^32 - 2 (2^32 - 1 is no id) or
  /// meets another on either side, and where there are none, or more than kMaxRanges.
  explicit IdMap(std::vector<IdRange> ranges);

  bool identity() const { return ranges_.empty(); }
  /// Empty where the guest cannot have the id.
  std::optional<uint32_t> toHost(uint32_t guest) const;
  bool hasHost(uint32_t host) const { return find(host).has_value(); }
  /// kOverflow where it is not mapped.
  uint32_t toGuest(uint32_t host) const { return ranges_.empty() ? host : find(host).value_or(kOverflow); }

 private:
  std::optional<uint32_t> find(uint32_t host) const;

  std::vector<IdRange> ranges_;
};

}  // namespace tsvmm::virtio::fs
