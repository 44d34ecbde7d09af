#pragma once

#include <functional>

#include "devices/bus.h"

namespace tsvmm {

/// How a guest asks for its end.
enum class PowerRequest { kPowerOff, kReset, kPanic, kCrashLoaded };

using PowerHandler = std::function<void(PowerRequest)>;

/// The hardware-reduced ACPI registers (ACPI 6.5, 4.8.3.7 sleep control and status, 4.8.3.6 reset): a page of
/// MMIO. Offset 0: sleep control (SLP_EN with SLP_TYP 5 powers off), 1: sleep status, 2: reset (the value 1
/// resets).
class AcpiPower : public BusDevice {
 public:
  static constexpr uint64_t kSize = 0x1000;

  explicit AcpiPower(PowerHandler handler) : handler_(std::move(handler)) {}
  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  PowerHandler handler_;
};

/// The i8042's command port (0x64): the pulse of the reset line (command 0xfe) is how a kernel without ACPI
/// reboots. There is no keyboard: status reads as "nothing there".
class I8042Reset : public BusDevice {
 public:
  static constexpr uint64_t kBase = 0x60;
  static constexpr uint64_t kSize = 5;

  explicit I8042Reset(PowerHandler handler) : handler_(std::move(handler)) {}
  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  PowerHandler handler_;
};

/// The pvpanic device (QEMU's docs/specs/pvpanic): one byte; reading tells the events it knows, writing tells
/// of one.
class Pvpanic : public BusDevice {
 public:
  static constexpr uint64_t kSize = 2;

  explicit Pvpanic(PowerHandler handler) : handler_(std::move(handler)) {}
  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  PowerHandler handler_;
};

}  // namespace tsvmm
