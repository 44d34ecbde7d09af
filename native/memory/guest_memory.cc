#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace tsvmm {
namespace {
constexpr uint64_t kPage = 4096;
constexpr uint64_t kHugePage = 2 << 20;
}  // namespace

GuestMemory::GuestMemory(const std::vector<RegionSpec>& regions, Options options) {
  uint64_t end = 0;
  for (const RegionSpec& region : regions) {
    if (region.size == 0 || region.size % kPage != 0 || region.address % kPage != 0) {
      throw std::invalid_argument("memory regions must be page aligned and not empty");
    }
    if (region.address < end || region.address + region.size < region.address) {
      throw std::invalid_argument("memory regions must ascend and must not overlap");
    }
    end = region.address + region.size;
    size_ += region.size;
  }
  if (options.backing == Backing::kMemfd) {
    memfd_ = Fd(memfd_create("tsvmm-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memfd_ || ftruncate(memfd_.get(), static_cast<off_t>(size_)) != 0) {
      throw std::system_error(errno, std::generic_category(), "memfd_create or ftruncate of guest memory");
    }
  }
  uint64_t offset = 0;
  for (const RegionSpec& region : regions) {
    // Huge pages need host and guest addresses congruent modulo 2 MiB: reserve more and cut.
    const size_t reserved = region.size + kHugePage;
    void* base = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "mmap of guest memory");
    }
    mappings_.emplace_back(base, reserved);
    const uint64_t start = reinterpret_cast<uint64_t>(base);
    const uint64_t aligned = ((start + kHugePage - 1) & ~(kHugePage - 1)) + region.address % kHugePage;
    auto* wanted = reinterpret_cast<void*>(aligned + region.size <= start + reserved ? aligned : start);
    const int flags = MAP_FIXED | MAP_NORESERVE | (memfd_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    void* host = mmap(wanted, region.size, PROT_READ | PROT_WRITE, flags, memfd_ ? memfd_.get() : -1,
                      memfd_ ? static_cast<off_t>(offset) : 0);
    if (host == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "mmap of guest memory");
    }
    if (options.hugePages) {
      // Refused where the kernel has no transparent huge pages; the memory is as good without.
      madvise(host, region.size, MADV_HUGEPAGE);
    }
    madvise(host, region.size, MADV_DONTDUMP);
    regions_.push_back({region.address, region.size, static_cast<uint8_t*>(host), offset});
    offset += region.size;
  }
}

GuestMemory::~GuestMemory() {
  for (const auto& [base, size] : mappings_) {
    munmap(base, size);
  }
}

int GuestMemory::discard(const GuestSlice& slice) const noexcept {
  const uint8_t* const from = slice.unsafeData();
  for (const Region& region : regions_) {
    if (from < region.host || from >= region.host + region.size) {
      continue;
    }
    const auto offset = static_cast<uint64_t>(from - region.host);
    const uint64_t first = (offset + kPage - 1) & ~(kPage - 1);
    const uint64_t end = std::min(offset + slice.size(), region.size) & ~(kPage - 1);
    if (first >= end) {
      return 0;
    }
    const int result =
        memfd_ ? fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(region.fileOffset + first), static_cast<off_t>(end - first))
               : madvise(region.host + first, end - first, MADV_DONTNEED);
    return result == 0 ? 0 : errno;
  }
  return EFAULT;
}

int GuestMemory::load(int fd, uint64_t fileOffset, uint64_t address, uint64_t length) const noexcept {
  const auto to = slice(address, length);
  if (!to) {
    return EFAULT;
  }
  size_t done = 0;
  while (done < length) {
    const ssize_t n =
        pread(fd, to->unsafeData() + done, length - done, static_cast<off_t>(fileOffset + done));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return n == 0 ? ENODATA : errno;
    }
    done += static_cast<size_t>(n);
  }
  return 0;
}

}  // namespace tsvmm
