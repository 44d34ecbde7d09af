#include "devices/power.h"

#include <cstring>

namespace tsvmm {
namespace {

constexpr uint64_t kSleepControl = 0;
constexpr uint64_t kReset = 2;
constexpr uint8_t kSleepEnable = 1 << 5;
constexpr uint8_t kSleepTypeMask = 7 << 2;
constexpr uint8_t kSleepTypeS5 = 5 << 2;
constexpr uint8_t kResetValue = 1;

constexpr uint64_t kI8042Command = 4;
constexpr uint8_t kPulseReset = 0xfe;

constexpr uint8_t kPanicked = 1 << 0;
constexpr uint8_t kCrashLoaded = 1 << 1;

}  // namespace

void AcpiPower::read(uint64_t /*offset*/, std::span<uint8_t> data) {
  std::memset(data.data(), 0, data.size());
}

void AcpiPower::write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset == kSleepControl && (data[0] & kSleepEnable) != 0 &&
      (data[0] & kSleepTypeMask) == kSleepTypeS5) {
    handler_(PowerRequest::kPowerOff);
  } else if (offset == kReset && data[0] == kResetValue) {
    handler_(PowerRequest::kReset);
  }
}

void I8042Reset::read(uint64_t offset, std::span<uint8_t> data) {
  // A status of zero lets a kernel's write to the command port go ahead without waiting.
  std::memset(data.data(), offset == kI8042Command ? 0 : 0xff, data.size());
}

void I8042Reset::write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset == kI8042Command && data[0] == kPulseReset) {
    handler_(PowerRequest::kReset);
  }
}

void Pvpanic::read(uint64_t /*offset*/, std::span<uint8_t> data) {
  std::memset(data.data(), 0, data.size());
  data[0] = kPanicked | kCrashLoaded;
}

void Pvpanic::write(uint64_t /*offset*/, std::span<const uint8_t> data) {
  if ((data[0] & kPanicked) != 0) {
    handler_(PowerRequest::kPanic);
  } else if ((data[0] & kCrashLoaded) != 0) {
    handler_(PowerRequest::kCrashLoaded);
  }
}

}  // namespace tsvmm
