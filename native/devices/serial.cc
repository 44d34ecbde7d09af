#include "devices/serial.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace tsvmm {
namespace {

// A guest writes a byte an exit: this long its bytes are collected, so that they cost a system call together.
constexpr auto kCollectFor = std::chrono::milliseconds(1);

}  // namespace

Serial::Serial(EventLoop& loop, Options options)
    : loop_(loop),
      sink_(std::move(options.sink)),
      source_(std::move(options.source)),
      raiseInterrupt_(std::move(options.raiseInterrupt)),
      panicked_(std::move(options.panicked)),
      polledInput_(options.polledInput),
      self_(std::make_shared<Serial*>(this)),
      uart_([this](uint8_t byte) { transmit(byte); }) {}

Serial::~Serial() {
  close();
  loop_.call([this] {
    self_.reset();
    if (sink_) {
      sink_->cancel();
    }
    if (source_) {
      source_->cancel();
    }
    if (timerSet_) {
      loop_.cancel(timer_);
    }
  });
}

void Serial::start() { readInput(); }

void Serial::postOnce(bool Serial::*flag, void (Serial::*function)()) {
  if (std::exchange(this->*flag, true)) {
    return;
  }
  loop_.post([weak = std::weak_ptr(self_), function] {
    if (const auto self = weak.lock()) {
      ((**self).*function)();
    }
  });
}

template <typename Access>
void Serial::withRegisters(std::unique_lock<std::mutex>& lock, Access&& access) {
  access();
  const bool high = uart_.interruptPending();
  const bool risen = high && !lineHigh_;
  lineHigh_ = high;
  if (risen && raiseInterrupt_) {
    lock.unlock();
    raiseInterrupt_();
    lock.lock();
  }
}

uint8_t Serial::read(uint8_t offset) {
  std::unique_lock lock(mutex_);
  uint8_t value = 0xff;
  withRegisters(lock, [&] {
    value = uart_.read(offset);
    if (offset == Uart16550::kData) {
      refill();
      wantInput();
    }
  });
  return value;
}

void Serial::write(uint8_t offset, uint8_t value) {
  std::unique_lock lock(mutex_);
  withRegisters(lock, [&] {
    if (offset == Uart16550::kFifoControl) {
      // What the guest has not read is sent again after the FIFO is cleared: nothing that was typed is lost.
      uint8_t unread[Uart16550::kFifoSize];
      const size_t count = uart_.takeBack(unread);
      input_.insert(input_.begin(), unread, unread + count);
    }
    uart_.write(offset, value);
    refill();
    wantInput();
  });
  if (std::exchange(outputComplete_, false)) {
    sawPanic_.store(true, std::memory_order_release);
    if (panicked_) {
      const std::string text = detector_.text();
      lock.unlock();
      panicked_(text);
      lock.lock();
    }
  }
  taken_.wait(lock, [&] { return outputPending_ <= kOutputLimit || closed_ || !waiting_; });
}

void Serial::transmit(uint8_t byte) {
  outputComplete_ = detector_.feed(byte) || outputComplete_;
  // Only a guest that is not made to wait (it is being stopped) gets past the limit by more than a byte.
  if (!sink_ || outputPending_ >= 2 * kOutputLimit) {
    return;
  }
  output_.push_back(byte);
  outputPending_++;
  postOnce(&Serial::outputScheduled_, &Serial::scheduleOutput);
}

void Serial::scheduleOutput() {
  if (!timerSet_) {
    timerSet_ = true;
    timer_ = loop_.after(kCollectFor, [this] {
      timerSet_ = false;
      writeOutput();
    });
  }
}

void Serial::writeOutput() {
  while (true) {
    if (writingAt_ == writing_.size()) {
      writing_.clear();
      writingAt_ = 0;
      std::lock_guard lock(mutex_);
      outputScheduled_ = false;
      writing_.swap(output_);
      if (writing_.empty()) {
        break;
      }
    }
    ssize_t count = static_cast<ssize_t>(writing_.size() - writingAt_);
    if (!sinkBroken_) {
      const iovec part{writing_.data() + writingAt_, static_cast<size_t>(count)};
      count = sink_->writev(&part, 1);
      if (count == -EAGAIN || count == 0) {
        if (!std::exchange(awaitingSink_, true)) {
          sink_->awaitWritable(loop_, [this] {
            awaitingSink_ = false;
            writeOutput();
          });
        }
        return;
      }
      if (count < 0) {
        // Nobody reads any more: a guest that waited for ever would be of use to nobody.
        sinkBroken_ = true;
        continue;
      }
    }
    writingAt_ += static_cast<size_t>(count);
    std::lock_guard lock(mutex_);
    outputPending_ -= static_cast<size_t>(count);
    taken_.notify_all();
  }
  if (const auto flushed = std::exchange(flushed_, {})) {
    flushed();
  }
}

void Serial::refill() {
  while (inputOpen() && !input_.empty() && uart_.receiveRoom() != 0) {
    uart_.receive(input_.front());
    input_.pop_front();
  }
}

void Serial::wantInput() {
  // Half a buffer at a time: not a call for each byte that the guest takes.
  if (inputOpen() && source_ && !closed_ && input_.size() <= kInputLimit / 2) {
    postOnce(&Serial::inputScheduled_, &Serial::readInput);
  }
}

void Serial::readInput() {
  uint8_t buffer[kInputLimit];
  while (source_ && !sourceEnded_ && !awaitingSource_) {
    size_t room;
    {
      std::lock_guard lock(mutex_);
      // A FIFO that the guest has cleared went back to input_, which may be over the limit by that much.
      room = kInputLimit - std::min(kInputLimit, input_.size());
      if (room == 0 || closed_) {
        inputScheduled_ = false;
        return;
      }
      // While the source is waited for, and when it has ended, nobody need ask for more.
      inputScheduled_ = true;
    }
    const iovec part{buffer, room};
    const ssize_t count = source_->readv(&part, 1);
    if (count == -EAGAIN) {
      awaitingSource_ = true;
      source_->awaitReadable(loop_, [this] {
        awaitingSource_ = false;
        readInput();
      });
    } else if (count <= 0) {
      sourceEnded_ = true;
    } else {
      std::unique_lock lock(mutex_);
      input_.insert(input_.end(), buffer, buffer + count);
      withRegisters(lock, [this] { refill(); });
    }
  }
}

void Serial::setWaiting(bool waiting) {
  std::lock_guard lock(mutex_);
  waiting_ = waiting;
  taken_.notify_all();
}

void Serial::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  taken_.notify_all();
}

void Serial::whenFlushed(std::function<void()> done) {
  flushed_ = std::move(done);
  writeOutput();
}

bool Serial::flush(std::chrono::milliseconds limit) {
  loop_.call([this] { writeOutput(); });
  std::unique_lock lock(mutex_);
  return taken_.wait_for(lock, limit, [this] { return outputPending_ == 0; });
}

std::string Serial::panicText() const {
  std::lock_guard lock(mutex_);
  return sawPanic() ? detector_.text() : std::string();
}

}  // namespace tsvmm
