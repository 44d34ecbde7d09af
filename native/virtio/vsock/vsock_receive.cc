// Packets from the guest: the transmit queue. Nothing in them is believed.

#include <cerrno>
#include <system_error>

#include "virtio/vsock/socket_endpoint.h"
#include "virtio/vsock/vsock.h"

namespace tsvmm::virtio::vsock {

void Vsock::serveTransmit() {
  if (host_ == nullptr || paused_) {
    return;
  }
  Queue& queue = host_->queue(kTransmitQueue);
  if (!queue.enabled()) {
    pump();
    return;
  }
  const bool more = queue.drain([&](Chain& chain) {
    receive(chain);
    queue.push(chain.head(), 0);
    return true;
  });
  host_->signalQueue(kTransmitQueue);
  if (failed(kTransmitQueue)) {
    return;
  }
  if (more && !transmitPosted_) {
    transmitPosted_ = true;
    host_->loop().post([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self != nullptr && std::exchange(self->transmitPosted_, false)) {
        self->serveTransmit();
      }
    });
  }
  pump();
}

void Vsock::receive(Chain& chain) {
  metrics.requests.fetch_add(1, std::memory_order_relaxed);
  const auto read = chain.read<Header>();
  if (!read || read->sourceCid != options_.cid || read->destinationCid != kHostCid) {
    // Not from an address of ours to an address of ours: there is nobody to answer (5.10.6.4).
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const Header& header = *read;
  Connection* connection = find(header.sourcePort, header.destinationPort);
  if (header.operation == kReset) {
    // Never answered.
    if (connection != nullptr && header.type == kStream) {
      refuseConnect(*connection, ECONNREFUSED);
      const bool cut = (connection->guestFlags & kNoSend) == 0;
      drop(*connection, false, cut);
    }
    return;
  }
  if (header.type != kStream) {
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
    oweReset(header.sourcePort, header.destinationPort, header.type);
    return;
  }
  if (header.length != chain.readableLeft()) {
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
    if (connection != nullptr) {
      drop(*connection, true, true);
    } else {
      oweReset(header.sourcePort, header.destinationPort, kStream);
    }
    return;
  }
  if (header.operation == kRequest) {
    if (connection != nullptr) {
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
      drop(*connection, true, true);
      return;
    }
    receiveRequest(header);
    return;
  }
  if (connection == nullptr) {
    oweReset(header.sourcePort, header.destinationPort, kStream);
    return;
  }
  receiveFor(*connection, header, chain);
}

const std::string* Vsock::unixPathFor(uint32_t hostPort, std::string& buffer) const {
  if (const auto found = paths_.find(hostPort); found != paths_.end()) {
    return &found->second;
  }
  if (!prefix_) {
    return nullptr;
  }
  buffer = *prefix_ + "_" + std::to_string(hostPort);
  return &buffer;
}

void Vsock::receiveRequest(const Header& header) {
  const uint32_t guestPort = header.sourcePort;
  const uint32_t hostPort = header.destinationPort;
  // What was bound before the guest could know of it comes first, and not once this round of packets is over.
  applyPortChanges();
  std::string path;
  const auto listener = listeners_.find(hostPort);
  const auto bound = binds_.find(hostPort);
  const bool known =
      bound != binds_.end() || listener != listeners_.end() || unixPathFor(hostPort, path) != nullptr;
  if (!known || table_.size() + draining_.size() >= options_.maxConnections) {
    oweReset(guestPort, hostPort, kStream);
    return;
  }
  std::shared_ptr<Endpoint> endpoint;
  EndedHandler ended;
  if (bound != binds_.end()) {
    endpoint = std::move(bound->second.front().endpoint);
    ended = std::move(bound->second.front().ended);
    bound->second.pop_front();
    if (bound->second.empty()) {
      binds_.erase(bound);
    }
  } else if (listener != listeners_.end()) {
    endpoint = listener->second(guestPort);
    if (endpoint == nullptr) {
      oweReset(guestPort, hostPort, kStream);
      return;
    }
  }
  const auto connection = make(guestPort, hostPort);
  connection->updateCredit(header);
  if (endpoint != nullptr) {
    connection->endpoint = std::move(endpoint);
    connection->onEnded = std::move(ended);
    connection->want(kResponse);
    establish(*connection);
    progress(*connection);
    return;
  }
  connection->state = Connection::State::kOpening;
  connection->deadline = Clock::now() + options_.backlogTimeout;
  tryOpen(*connection);
}

void Vsock::tryOpen(Connection& connection) {
  std::string buffer;
  const std::string* path = unixPathFor(connection.hostPort, buffer);
  Fd socket;
  const int error = path == nullptr ? ECONNREFUSED : connectUnix(*path, socket);
  if (error == EAGAIN) {
    armTimer(kOpenRetry);
    return;
  }
  if (error != 0) {
    complain(connection.hostPort, (path == nullptr ? std::string("nobody listens any more")
                                                   : *path + ": " + std::generic_category().message(error)));
    drop(connection, true, true);
    return;
  }
  connection.endpoint = std::make_shared<SocketEndpoint>(std::move(socket));
  connection.want(kResponse);
  establish(connection);
  schedule(connection);
}

void Vsock::receiveFor(Connection& connection, const Header& header, Chain& chain) {
  using State = Connection::State;
  const auto refuse = [&] {
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
    drop(connection, true, true);
  };
  if (connection.state == State::kRequested
          ? header.operation != kResponse || connection.wants(kRequest)
          : header.operation == kResponse || connection.state == State::kOpening) {
    // An answer to what was not asked, or bytes before there is a connection.
    refuse();
    return;
  }
  if (!connection.updateCredit(header)) {
    refuse();
    return;
  }
  switch (header.operation) {
    case kResponse: {
      const auto connected = std::exchange(connection.onConnected, nullptr);
      if (connected) {
        connected(0);
      }
      establish(connection);
      break;
    }
    case kReadWrite:
      if ((connection.guestFlags & kNoSend) != 0 ||
          header.length > connection.window - connection.pending.size()) {
        refuse();
        return;
      }
      if (header.length != 0 && connection.state == State::kEstablished) {
        metrics.bytesWritten.fetch_add(header.length, std::memory_order_relaxed);
        connection.accept(chain.takeReadable(header.length), header.length);
      }
      break;
    case kShutdown:
      connection.guestFlags |= header.flags & kNoBoth;
      if (connection.state == State::kClosing) {
        if (connection.guestFlags == kNoBoth) {
          drop(connection, true, false);
          return;
        }
        break;
      }
      if ((header.flags & kNoReceive) != 0 && connection.endpoint->hasInput()) {
        connection.endpoint->endRead();
      }
      connection.considerEndOfOutput();
      break;
    case kCreditRequest:
      connection.want(kCreditUpdate);
      break;
    case kCreditUpdate:
      break;
    default:
      refuse();
      return;
  }
  progress(connection);
}

}  // namespace tsvmm::virtio::vsock
