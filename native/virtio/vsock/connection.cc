#include "virtio/vsock/connection.h"

#include <algorithm>
#include <cerrno>

namespace tsvmm::virtio::vsock {

uint32_t Connection::credit() const {
  const uint32_t inFlight = sent - guestForwarded;
  return inFlight < guestWindow ? guestWindow - inFlight : 0;
}

bool Connection::updateCredit(const Header& header) {
  if (static_cast<int32_t>(sent - header.forwardedCount) < 0) {
    return false;
  }
  // More in flight than half the numbers there are could not be told from a lie.
  guestWindow = std::min<uint32_t>(header.bufferSize, INT32_MAX);
  // A driver with several processors may queue packets in another order than it stamped them: an older count
  // says nothing.
  if (static_cast<int32_t>(header.forwardedCount - guestForwarded) > 0) {
    guestForwarded = header.forwardedCount;
  }
  if (credit() != 0) {
    creditAsked = false;
    unwant(kCreditRequest);
  }
  return true;
}

void Connection::considerCreditUpdate() {
  const uint32_t untold = forwarded - told;
  const uint32_t guestSees = window - (received - told);
  if (untold >= window / 2 || (untold != 0 && pending.empty() && guestSees < window / 2)) {
    want(kCreditUpdate);
  }
}

void Connection::forward(uint32_t bytes) {
  forwarded += bytes;
  considerCreditUpdate();
}

void Connection::flush() {
  while (!pending.empty() && !outputBroken && endpoint->writable()) {
    const iovec part{const_cast<uint8_t*>(pending.data()), pending.size()};
    const ssize_t n = endpoint->write({&part, 1});
    if (n > 0) {
      pending.consume(static_cast<size_t>(n));
      forward(static_cast<uint32_t>(n));
    } else if (n != -EAGAIN) {
      breakOutput();
    }
  }
  considerEndOfOutput();
}

void Connection::accept(std::span<const iovec> payload, uint32_t length) {
  received += length;
  if (!endpoint->hasOutput() && !outputBroken) {
    breakOutput();
  }
  size_t done = 0;
  if (pending.empty() && !outputBroken && endpoint->writable()) {
    const ssize_t n = endpoint->write(payload);
    if (n > 0) {
      done = static_cast<size_t>(n);
      forward(static_cast<uint32_t>(n));
    } else if (n != -EAGAIN) {
      breakOutput();
    }
  }
  if (outputBroken) {
    ended.lost += length - done;
    forward(static_cast<uint32_t>(length - done));
  } else if (done < length) {
    pending.append(payload, done);
    flush();
  }
}

void Connection::breakOutput() {
  if (outputBroken) {
    return;
  }
  outputBroken = true;
  ended.lost += pending.size();
  const auto dropped = static_cast<uint32_t>(pending.size());
  pending.clear();
  forward(dropped);
  if (state == State::kEstablished && (guestFlags & kNoSend) == 0) {
    ourFlags |= kNoReceive;
    want(kShutdown);
  }
}

void Connection::considerEndOfOutput() {
  if ((guestFlags & kNoSend) != 0 && pending.empty() && !outputEnded && !outputBroken &&
      endpoint->hasOutput()) {
    outputEnded = true;
    endpoint->endWrite();
  }
}

bool Connection::outputDone() const {
  return outputBroken || !endpoint->hasOutput() || ((guestFlags & kNoSend) != 0 && pending.empty());
}

bool Connection::inputDone() const {
  return inputEnded || !endpoint->hasInput() || (guestFlags & kNoReceive) != 0;
}

bool Connection::hasInput() const {
  return state == State::kEstablished && !inputDone() && endpoint->readable();
}

bool Connection::wantsToSend() {
  if (hasInput()) {
    if (credit() != 0) {
      return true;
    }
    if (!creditAsked) {
      creditAsked = true;
      want(kCreditRequest);
    }
  }
  return operations != 0;
}

}  // namespace tsvmm::virtio::vsock
