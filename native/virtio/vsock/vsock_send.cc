// Packets to the guest: the receive and the event queue. Who has something to send stands in a list and is
// served in turn, as far as the guest has buffers; nothing is built ahead, so what waits is a few bits a
// connection.

#include <algorithm>
#include <cerrno>

#include "virtio/vsock/vsock.h"

namespace tsvmm::virtio::vsock {
namespace {

constexpr size_t kMaxOwedResets = 8192;
constexpr uint32_t kTurn = 128 << 10;  // bytes that one connection sends before the next gets its turn
constexpr int kMaxComplaints = 10;     // lines for the log in ten seconds
constexpr int kTurnsInARow = 32;       // before the loop looks after others

}  // namespace

Header Vsock::headerFor(const Connection& connection, Operation operation) const {
  Header header;
  header.sourceCid = kHostCid;
  header.destinationCid = options_.cid;
  header.sourcePort = connection.hostPort;
  header.destinationPort = connection.guestPort;
  header.type = kStream;
  header.operation = operation;
  header.bufferSize = connection.window;
  header.forwardedCount = connection.forwarded;
  return header;
}

void Vsock::oweReset(uint32_t guestPort, uint32_t hostPort, uint16_t type) {
  // A guest that sends without end and takes nothing does without answers.
  if (host_ != nullptr && owedResets_.size() < kMaxOwedResets) {
    owedResets_.push_back({guestPort, hostPort, type});
  }
}

void Vsock::schedule(Connection& connection) {
  if (!connection.queued && connection.wantsToSend()) {
    connection.queued = true;
    connection.place = ready_.insert(ready_.end(), &connection);
  }
}

void Vsock::pump() {
  if (host_ == nullptr || pumping_ || paused_) {
    return;
  }
  pumping_ = true;
  int turns = kTurnsInARow;
  while (!owedResets_.empty() || !ready_.empty()) {
    if (!host_->queue(kReceiveQueue).enabled() || receive_.fill(1) == 0) {
      break;  // the driver notifies when it has given more
    }
    if (turns-- == 0) {
      if (!pumpPosted_) {
        pumpPosted_ = true;
        host_->loop().post([weak = weak_from_this()] {
          const auto self = weak.lock();
          if (self != nullptr && std::exchange(self->pumpPosted_, false)) {
            self->pump();
          }
        });
      }
      break;
    }
    if (!owedResets_.empty()) {
      const OwedReset owed = owedResets_.front();
      owedResets_.pop_front();
      Header header;
      header.sourceCid = kHostCid;
      header.destinationCid = options_.cid;
      header.sourcePort = owed.hostPort;
      header.destinationPort = owed.guestPort;
      header.type = owed.type;
      header.operation = kReset;
      receive_.send(header, 0);
      continue;
    }
    Connection& connection = *ready_.front();
    ready_.pop_front();
    connection.queued = false;
    serve(connection);
  }
  if (receive_.takePushed()) {
    host_->signalQueue(kReceiveQueue);
  }
  pumping_ = false;
  failed(kReceiveQueue);
}

bool Vsock::failed(uint16_t queue) {
  if (!host_->queue(queue).broken()) {
    return false;
  }
  host_->fail("queue " + std::to_string(queue) + ": " + host_->queue(queue).brokenReason());
  return true;
}

void Vsock::complain(uint32_t hostPort, const std::string& what) {
  const auto now = Clock::now();
  if (now >= complaintsAnew_) {
    complaintsAnew_ = now + std::chrono::seconds(10);
    complaints_ = 0;
  }
  if (complaints_ == kMaxComplaints || host_ == nullptr) {
    untold_++;
    return;
  }
  complaints_++;
  std::string line = "port " + std::to_string(hostPort) + ": " + what;
  if (untold_ != 0) {
    line += " (and " + std::to_string(std::exchange(untold_, 0)) + " others)";
  }
  host_->log(line);
}

void Vsock::serve(Connection& connection) {
  // Held: reading its endpoint may end it.
  const auto held = connection.shared_from_this();
  for (const Operation operation : {kRequest, kResponse, kShutdown}) {
    if (connection.wants(operation)) {
      sendControl(connection, operation);
      progress(connection);
      return;
    }
  }
  if (connection.hasInput() && connection.credit() != 0 && sendData(connection)) {
    progress(connection);
    return;
  }
  for (const Operation operation : {kCreditUpdate, kCreditRequest}) {
    if (connection.wants(operation)) {
      sendControl(connection, operation);
      break;
    }
  }
  schedule(connection);
}

void Vsock::sendControl(Connection& connection, Operation operation) {
  Header header = headerFor(connection, operation);
  if (operation == kShutdown) {
    header.flags = connection.ourFlags;
  }
  connection.unwant(operation);
  connection.told = connection.forwarded;
  connection.unwant(kCreditUpdate);
  receive_.send(header, 0);
}

bool Vsock::sendData(Connection& connection) {
  const uint32_t limit = std::min(connection.credit(), kTurn);
  receive_.fill(ReceiveRing::kCapacity);
  const auto room = receive_.payload(limit);
  if (room.empty()) {
    // Buffers without room for a payload: not what a driver gives.
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
    receive_.discard();
    return true;
  }
  const ssize_t n = connection.endpoint->read(room);
  if (n == -EAGAIN) {
    return false;
  }
  if (n == -ECONNRESET ||
      (n == 0 && connection.endpoint->givenUp() && (connection.guestFlags & kNoSend) == 0)) {
    // The other end is gone, and with it what it had not read.
    if (n != 0) {
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
      complain(connection.hostPort, "the host's end is gone without having read everything");
    }
    connection.breakOutput();
    drop(connection, true, true);
    return true;
  }
  if (n <= 0) {
    // The end, or an error after which nothing more comes either.
    connection.inputEnded = true;
    connection.ourFlags |= kNoSend;
    connection.want(kShutdown);
    if (n < 0) {
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
    }
    return true;
  }
  auto left = static_cast<uint32_t>(n);
  metrics.bytesRead.fetch_add(left, std::memory_order_relaxed);
  connection.told = connection.forwarded;
  connection.unwant(kCreditUpdate);
  connection.sent += left;
  Header header = headerFor(connection, kReadWrite);
  while (left != 0) {
    header.length = std::min(left, receive_.firstRoom());
    left -= header.length;
    receive_.send(header, header.length);
  }
  return true;
}

void Vsock::sendEvent() {
  if (!eventOwed_ || host_ == nullptr || paused_) {
    return;
  }
  Queue& queue = host_->queue(kEventQueue);
  Chain chain;
  while (true) {
    queue.disableNotifications();
    if (queue.pop(chain) == Queue::Pop::kChain) {
      // A buffer that is too small for an event goes back empty.
      const bool sent = chain.write(kTransportReset);
      queue.push(chain);
      host_->signalQueue(kEventQueue);
      if (sent) {
        eventOwed_ = false;
        return;
      }
    } else if (failed(kEventQueue) || !queue.enableNotifications()) {
      return;
    }
  }
}

}  // namespace tsvmm::virtio::vsock
