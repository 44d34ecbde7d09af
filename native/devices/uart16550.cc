#include "devices/uart16550.h"

namespace tsvmm {
namespace {

// LSR.
constexpr uint8_t kDataReady = 1 << 0;
constexpr uint8_t kOverrun = 1 << 1;
constexpr uint8_t kTransmitterHoldingEmpty = 1 << 5;
constexpr uint8_t kTransmitterEmpty = 1 << 6;
// MCR.
constexpr uint8_t kDtr = 1 << 0;
constexpr uint8_t kRts = 1 << 1;
constexpr uint8_t kOut1 = 1 << 2;
constexpr uint8_t kOut2 = 1 << 3;
constexpr uint8_t kLoop = 1 << 4;
// MSR: the lines; their deltas are four bits below.
constexpr uint8_t kCts = 1 << 4;
constexpr uint8_t kDsr = 1 << 5;
constexpr uint8_t kRing = 1 << 6;
constexpr uint8_t kCarrier = 1 << 7;
constexpr uint8_t kConnected = kCts | kDsr | kCarrier;
// FCR.
constexpr uint8_t kFifoEnable = 1 << 0;
constexpr uint8_t kClearReceiver = 1 << 1;
// IIR: both bits say that the FIFOs are on.
constexpr uint8_t kFifosEnabled = 0xc0;

/// What the modem control outputs look like on the inputs while looped back.
uint8_t loopedLines(uint8_t modemControl) {
  return static_cast<uint8_t>(
      ((modemControl & kRts) != 0 ? kCts : 0) | ((modemControl & kDtr) != 0 ? kDsr : 0) |
      ((modemControl & kOut1) != 0 ? kRing : 0) | ((modemControl & kOut2) != 0 ? kCarrier : 0));
}

}  // namespace

bool Uart16550::loopback() const { return (modemControl_ & kLoop) != 0; }

size_t Uart16550::triggerLevel() const {
  constexpr size_t kLevels[] = {1, 4, 8, 14};
  return fifoEnabled() ? kLevels[fifoControl_ >> 6] : 1;
}

uint8_t Uart16550::identify() const {
  if ((interruptEnable_ & kEnableLineStatus) != 0 && overrun_) {
    return kIdentifyLineStatus;
  }
  if ((interruptEnable_ & kEnableReceived) != 0 && fifoCount_ != 0) {
    // Below the trigger level the line has been silent long enough for the timeout: time does not pass here.
    return fifoCount_ >= triggerLevel() ? kIdentifyReceived : kIdentifyTimeout;
  }
  if ((interruptEnable_ & kEnableTransmitterEmpty) != 0 && transmitterEmptied_) {
    return kIdentifyTransmitterEmpty;
  }
  if ((interruptEnable_ & kEnableModemStatus) != 0 && modemDeltas_ != 0) {
    return kIdentifyModemStatus;
  }
  return kIdentifyNone;
}

uint8_t Uart16550::read(uint8_t offset) {
  switch (offset) {
    case kData: {
      if (divisorAccess()) {
        return static_cast<uint8_t>(divisor_);
      }
      if (fifoCount_ == 0) {
        return 0;
      }
      const uint8_t byte = fifo_[fifoHead_];
      fifoHead_ = (fifoHead_ + 1) % kFifoSize;
      fifoCount_--;
      holdsLooped_ = holdsLooped_ && fifoCount_ != 0;
      return byte;
    }
    case kInterruptEnable:
      return divisorAccess() ? static_cast<uint8_t>(divisor_ >> 8) : interruptEnable_;
    case kInterruptIdentify: {
      const uint8_t cause = identify();
      if (cause == kIdentifyTransmitterEmpty) {
        transmitterEmptied_ = false;  // reading it is the acknowledgement
      }
      return cause | (fifoEnabled() ? kFifosEnabled : 0);
    }
    case kLineControl:
      return lineControl_;
    case kModemControl:
      return modemControl_;
    case kLineStatus: {
      const uint8_t status =
          static_cast<uint8_t>(kTransmitterHoldingEmpty | kTransmitterEmpty |
                               (fifoCount_ != 0 ? kDataReady : 0) | (overrun_ ? kOverrun : 0));
      overrun_ = false;
      return status;
    }
    case kModemStatus: {
      const uint8_t status = modemLines_ | modemDeltas_;
      modemDeltas_ = 0;
      return status;
    }
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Uart16550::write(uint8_t offset, uint8_t value) {
  switch (offset) {
    case kData:
      if (divisorAccess()) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      } else {
        transmit(value);
      }
      break;
    case kInterruptEnable:
      if (divisorAccess()) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | value << 8);
        break;
      }
      // Enabling the interrupt of an empty transmitter raises it, again each time: drivers test for that.
      if ((value & kEnableTransmitterEmpty) != 0 && (interruptEnable_ & kEnableTransmitterEmpty) == 0) {
        transmitterEmptied_ = true;
      }
      interruptEnable_ = value & 0x0f;
      break;
    case kFifoControl:
      if (((value ^ fifoControl_) & kFifoEnable) != 0 || (value & kClearReceiver) != 0) {
        clearReceived();
      }
      // The other bits count only together with the enable bit.
      fifoControl_ = (value & kFifoEnable) != 0 ? static_cast<uint8_t>(value & 0xc9) : 0;
      break;
    case kLineControl:
      lineControl_ = value;
      break;
    case kModemControl:
      modemControl_ = value & 0x1f;
      setModemLines(loopback() ? loopedLines(modemControl_) : kConnected);
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:
      break;  // LSR and MSR: writing is for factory tests
  }
}

void Uart16550::transmit(uint8_t byte) {
  if (!loopback()) {
    transmit_(byte);
  } else if (fifoCount_ < capacity()) {
    fifo_[(fifoHead_ + fifoCount_++) % kFifoSize] = byte;
    holdsLooped_ = true;
  } else {
    overrun_ = true;
  }
  transmitterEmptied_ = true;
}

size_t Uart16550::receiveRoom() const { return loopback() ? 0 : capacity() - fifoCount_; }

void Uart16550::receive(uint8_t byte) {
  if (receiveRoom() == 0) {
    overrun_ = true;
    return;
  }
  fifo_[(fifoHead_ + fifoCount_++) % kFifoSize] = byte;
}

void Uart16550::setModemLines(uint8_t lines) {
  const uint8_t changed = lines ^ modemLines_;
  modemDeltas_ |= (changed & (kCts | kDsr | kCarrier)) >> 4;
  // The ring indicator's delta is for its trailing edge.
  if ((changed & kRing) != 0 && (lines & kRing) == 0) {
    modemDeltas_ |= kRing >> 4;
  }
  modemLines_ = lines;
}

void Uart16550::clearReceived() {
  fifoHead_ = 0;
  fifoCount_ = 0;
  holdsLooped_ = false;
}

size_t Uart16550::takeBack(uint8_t* to) {
  if (holdsLooped_) {
    return 0;
  }
  const size_t count = fifoCount_;
  for (size_t i = 0; i < count; i++) {
    to[i] = fifo_[(fifoHead_ + i) % kFifoSize];
  }
  clearReceived();
  return count;
}

}  // namespace tsvmm
