#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace tsvmm {

/// The registers of a 16550A (National Semiconductor PC16550D): no threads, no host. Transmission takes no
/// time, so the transmitter is always empty; the baud rate is stored and means nothing.
class Uart16550 {
 public:
  static constexpr size_t kFifoSize = 16;
  static constexpr uint8_t kRegisters = 8;

  // Registers by offset; the first two are the divisor's while LCR's DLAB is set.
  enum Register : uint8_t {
    kData = 0,               // RBR on reading, THR on writing; DLL
    kInterruptEnable = 1,    // IER; DLM
    kInterruptIdentify = 2,  // IIR on reading
    kFifoControl = 2,        // FCR on writing
    kLineControl = 3,        // LCR
    kModemControl = 4,       // MCR
    kLineStatus = 5,         // LSR, read only
    kModemStatus = 6,        // MSR, read only
    kScratch = 7,            // SCR
  };

  /// `transmit` gets each byte that leaves the port (not those that loop back).
  explicit Uart16550(std::function<void(uint8_t)> transmit) : transmit_(std::move(transmit)) {}

  uint8_t read(uint8_t offset);
  void write(uint8_t offset, uint8_t value);

  /// How many bytes receive() takes now: none while the port is looped back.
  size_t receiveRoom() const;
  /// A byte from the line; dropped with an overrun error if there is no room.
  void receive(uint8_t byte);
  /// Takes back what was received and not read, oldest first: for a line that sends again what a cleared FIFO
  /// would lose. Nothing where looped-back bytes are among it. At most kFifoSize bytes to `to`; returns how
  /// many.
  size_t takeBack(uint8_t* to);
  /// Whether the interrupt line is high.
  bool interruptPending() const { return identify() != kIdentifyNone; }
  /// Whether a driver waits for input by interrupt (IER's ERBFI).
  bool receiveInterruptEnabled() const { return (interruptEnable_ & kEnableReceived) != 0; }

 private:
  static constexpr uint8_t kEnableReceived = 1 << 0;
  static constexpr uint8_t kEnableTransmitterEmpty = 1 << 1;
  static constexpr uint8_t kEnableLineStatus = 1 << 2;
  static constexpr uint8_t kEnableModemStatus = 1 << 3;
  // IIR, in falling priority.
  static constexpr uint8_t kIdentifyLineStatus = 0x06;
  static constexpr uint8_t kIdentifyReceived = 0x04;
  static constexpr uint8_t kIdentifyTimeout = 0x0c;
  static constexpr uint8_t kIdentifyTransmitterEmpty = 0x02;
  static constexpr uint8_t kIdentifyModemStatus = 0x00;
  static constexpr uint8_t kIdentifyNone = 0x01;

  bool fifoEnabled() const { return (fifoControl_ & 1) != 0; }
  bool divisorAccess() const { return (lineControl_ & 0x80) != 0; }
  bool loopback() const;
  size_t capacity() const { return fifoEnabled() ? kFifoSize : 1; }
  size_t triggerLevel() const;
  uint8_t identify() const;
  void transmit(uint8_t byte);
  void setModemLines(uint8_t lines);
  void clearReceived();

  std::function<void(uint8_t)> transmit_;
  std::array<uint8_t, kFifoSize> fifo_{};
  size_t fifoHead_ = 0;
  size_t fifoCount_ = 0;
  uint8_t interruptEnable_ = 0;
  uint8_t fifoControl_ = 0;
  uint8_t lineControl_ = 0x03;  // 8N1
  uint8_t modemControl_ = 0;
  uint8_t scratch_ = 0;
  uint16_t divisor_ = 12;  // 9600 baud
  bool overrun_ = false;
  bool holdsLooped_ = false;         ///< a byte that was looped back is in the FIFO
  bool transmitterEmptied_ = false;  ///< the THRE interrupt is owed
  uint8_t modemLines_ = 0xb0;        ///< DCD, DSR, CTS: somebody is at the other end
  uint8_t modemDeltas_ = 0;
};

}  // namespace tsvmm
