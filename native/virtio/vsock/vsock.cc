#include "virtio/vsock/vsock.h"

#include <algorithm>
#include <cerrno>

namespace tsvmm::virtio::vsock {
namespace {

// Receive windows: a connection gets the large one while there are few, and less the less is left of the
// budget, with the smallest kept back for each connection that may still come: so all windows together, and
// with them what a guest can make the host hold, stay within the budget.
constexpr uint32_t kLargestWindow = 256 << 10;
constexpr uint32_t kSmallestWindow = 16 << 10;
constexpr size_t kWindowBudget = 128 << 20;
constexpr size_t kShare = 16;  // of what is left, one connection gets the sixteenth part

/// How often to look whether a patience of that length has ended.
std::chrono::milliseconds timerStep(std::chrono::milliseconds patience) {
  return std::clamp(patience / 4, std::chrono::milliseconds(10), std::chrono::milliseconds(500));
}

}  // namespace

Vsock::~Vsock() {
  if (host_ != nullptr) {
    Vsock::reset();
  }
}

void Vsock::activate(Host& host) {
  host_ = &host;
  receive_.attach(&host.queue(kReceiveQueue));
  std::vector<std::function<void()>> early;
  {
    std::lock_guard lock(mutex_);
    loop_ = &host.loop();
    early.swap(early_);
  }
  for (auto& function : early) {
    function();
  }
  const auto watchers = loopWatchers_;
  for (const auto& [key, changed] : watchers) {
    changed(&host.loop());
  }
  std::deque<Asked> asked;
  asked.swap(asked_);
  for (Asked& each : asked) {
    startConnect(std::move(each));
  }
  pump();
}

void Vsock::notify(uint16_t index) {
  if (index == kTransmitQueue) {
    serveTransmit();
  } else if (index == kReceiveQueue) {
    pump();
  } else if (index == kEventQueue) {
    sendEvent();
  }
}

void Vsock::reset() {
  if (host_ == nullptr) {
    return;
  }
  receive_.detach();
  dropAll();
  const auto watchers = loopWatchers_;
  for (const auto& [key, changed] : watchers) {
    changed(nullptr);
  }
  if (timer_ != 0) {
    host_->loop().cancel(timer_);
    timer_ = 0;
  }
  eventOwed_ = false;
  paused_ = false;
  pumpPosted_ = false;
  transmitPosted_ = false;
  std::lock_guard lock(mutex_);
  loop_ = nullptr;
  host_ = nullptr;
}

void Vsock::submit(std::function<void()> function) {
  std::lock_guard lock(mutex_);
  if (loop_ != nullptr) {
    loop_->post(std::move(function));
  } else {
    early_.push_back(std::move(function));
  }
}

void Vsock::changePorts(std::function<void()> change) {
  {
    std::lock_guard lock(portsMutex_);
    portChanges_.push_back(std::move(change));
  }
  submit([weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->applyPortChanges();
    }
  });
}

void Vsock::applyPortChanges() {
  std::deque<std::function<void()>> changes;
  {
    std::lock_guard lock(portsMutex_);
    changes.swap(portChanges_);
  }
  for (const auto& change : changes) {
    change();
  }
}

void Vsock::retire() {
  std::vector<std::function<void()>> early;
  {
    std::lock_guard lock(mutex_);
    if (loop_ != nullptr) {
      loop_->post([weak = weak_from_this()] {
        if (const auto self = weak.lock()) {
          self->forgetListeners();
        }
      });
      return;
    }
    early.swap(early_);
  }
  forgetListeners();
}

void Vsock::forgetListeners() {
  const auto watchers = std::exchange(loopWatchers_, {});
  if (host_ != nullptr) {
    for (const auto& [key, changed] : watchers) {
      changed(nullptr);
    }
  }
  applyPortChanges();
  binds_.clear();
  listeners_.clear();
  paths_.clear();
  prefix_.reset();
  for (const Asked& asked : std::exchange(asked_, {})) {
    asked.connected(ECONNRESET, 0);
  }
}

uint64_t Vsock::watchLoop(std::function<void(EventLoop*)> changed) {
  const uint64_t key = nextWatcher_++;
  if (host_ != nullptr) {
    changed(&host_->loop());
  }
  loopWatchers_.emplace(key, std::move(changed));
  return key;
}

void Vsock::bind(uint32_t port, std::shared_ptr<Endpoint> endpoint, EndedHandler ended) {
  binds_[port].push_back({std::move(endpoint), std::move(ended)});
}

bool Vsock::unbind(uint32_t port, const Endpoint* endpoint) {
  const auto found = binds_.find(port);
  if (found == binds_.end()) {
    return false;
  }
  const size_t taken =
      std::erase_if(found->second, [&](const Bind& bind) { return bind.endpoint.get() == endpoint; });
  if (found->second.empty()) {
    binds_.erase(found);
  }
  return taken != 0;
}

void Vsock::listen(uint32_t port, Accept accept) { listeners_[port] = std::move(accept); }
void Vsock::listenUnix(uint32_t port, std::string path) { paths_[port] = std::move(path); }
void Vsock::unlisten(uint32_t port) {
  listeners_.erase(port);
  paths_.erase(port);
}

void Vsock::connect(uint32_t guestPort, std::shared_ptr<Endpoint> endpoint, ConnectedHandler connected,
                    EndedHandler ended) {
  Asked asked{guestPort, std::move(endpoint), std::move(connected), std::move(ended)};
  if (host_ == nullptr) {
    asked_.push_back(std::move(asked));
    return;
  }
  startConnect(std::move(asked));
  pump();
}

void Vsock::startConnect(Asked asked) {
  if (table_.size() + draining_.size() >= options_.maxConnections) {
    asked.endpoint->close();
    asked.connected(ENOBUFS, 0);
    return;
  }
  // More ports than connections: one is free.
  while (find(asked.guestPort, nextHostPort_) != nullptr || binds_.contains(nextHostPort_) ||
         nextHostPort_ < (uint32_t{1} << 30) || nextHostPort_ == UINT32_MAX) {
    nextHostPort_ = nextHostPort_ < (uint32_t{1} << 30) || nextHostPort_ == UINT32_MAX ? uint32_t{1} << 30
                                                                                       : nextHostPort_ + 1;
  }
  const auto connection = make(asked.guestPort, nextHostPort_++);
  connection->endpoint = std::move(asked.endpoint);
  connection->onEnded = std::move(asked.ended);
  connection->onConnected = [connected = std::move(asked.connected), port = connection->hostPort](int error) {
    connected(error, error == 0 ? port : 0);
  };
  connection->want(kRequest);
  wait(*connection, options_.connectTimeout);
  schedule(*connection);
}

Connection* Vsock::find(uint32_t guestPort, uint32_t hostPort) {
  const auto found = table_.find(uint64_t{hostPort} << 32 | guestPort);
  return found == table_.end() ? nullptr : found->second.get();
}

uint32_t Vsock::windowForNext() const {
  const size_t count = std::min(table_.size() + draining_.size(), options_.maxConnections);
  const size_t taken = *windows_ + (options_.maxConnections - count) * kSmallestWindow;
  const size_t share = taken < kWindowBudget ? (kWindowBudget - taken) / kShare : 0;
  return static_cast<uint32_t>(std::clamp<size_t>(share, kSmallestWindow, kLargestWindow));
}

std::shared_ptr<Connection> Vsock::make(uint32_t guestPort, uint32_t hostPort) {
  auto connection = std::make_shared<Connection>(guestPort, hostPort, windowForNext(), windows_);
  table_[connection->key()] = connection;
  updateCount();
  return connection;
}

void Vsock::establish(Connection& connection) {
  connection.state = Connection::State::kEstablished;
  connection.deadline = Clock::time_point::max();
  const std::weak_ptr<Connection> weak = table_.at(connection.key());
  connection.endpoint->start(host_->loop(), [this, weak] {
    if (const auto held = weak.lock()) {
      endpointReady(held);
    }
  });
  if (connection.endpoint->outputBroken()) {
    connection.breakOutput();
  }
}

void Vsock::endpointReady(const std::shared_ptr<Connection>& connection) {
  if (connection->state != Connection::State::kEstablished &&
      connection->state != Connection::State::kDraining) {
    return;
  }
  if (connection->endpoint->outputBroken() && connection->endpoint->hasOutput()) {
    connection->breakOutput();
  }
  connection->flush();
  progress(*connection);
  pump();
}

void Vsock::progress(Connection& connection) {
  if (connection.state == Connection::State::kDraining) {
    if (connection.outputDone()) {
      finish(connection);
      draining_.erase(connection.shared_from_this());
      updateCount();
    }
    return;
  }
  if (connection.state == Connection::State::kEstablished) {
    const bool outputDone = connection.outputDone();
    if (connection.guestFlags == kNoBoth && outputDone) {
      // The guest has closed and everything it sent has gone: the RST is the acknowledgement (5.10.6.5).
      drop(connection, true, false);
      return;
    }
    if (outputDone && connection.inputDone() && !connection.wants(kResponse)) {
      connection.ourFlags = kNoBoth;
      connection.operations = 0;
      connection.want(kShutdown);
      connection.state = Connection::State::kClosing;
      finish(connection);
      wait(connection, options_.linger);
    }
  }
  schedule(connection);
}

void Vsock::finish(Connection& connection) {
  if (connection.ended.reset) {
    connection.endpoint->abort();
  } else {
    connection.endpoint->close();
  }
  refuseConnect(connection, ECONNRESET);
  if (const auto ended = std::exchange(connection.onEnded, nullptr)) {
    ended(connection.ended);
  }
}

void Vsock::refuseConnect(Connection& connection, int error) {
  if (const auto connected = std::exchange(connection.onConnected, nullptr)) {
    connection.onEnded = nullptr;
    connected(error);
  }
}

void Vsock::drop(Connection& connection, bool tellGuest, bool cut) {
  const std::shared_ptr<Connection> held = connection.shared_from_this();
  if (tellGuest) {
    oweReset(connection.guestPort, connection.hostPort, kStream);
  }
  if (connection.queued) {
    ready_.erase(connection.place);
    connection.queued = false;
  }
  table_.erase(connection.key());
  connection.operations = 0;
  connection.deadline = Clock::time_point::max();
  if (connection.state == Connection::State::kEstablished) {
    connection.ended.reset = cut;
    connection.guestFlags = kNoBoth;
    if (!connection.outputDone()) {
      connection.state = Connection::State::kDraining;
      connection.endpoint->endRead();
      draining_.insert(held);
      updateCount();
      return;
    }
  }
  if (connection.state != Connection::State::kClosing && connection.endpoint != nullptr) {
    finish(connection);
  }
  connection.state = Connection::State::kClosing;
  updateCount();
}

void Vsock::dropAll() {
  const auto table = std::exchange(table_, {});
  const auto draining = std::exchange(draining_, {});
  ready_.clear();
  owedResets_.clear();
  updateCount();
  const auto end = [this](Connection& connection) {
    connection.queued = false;
    if (connection.state == Connection::State::kClosing || connection.endpoint == nullptr) {
      return;
    }
    if (connection.state == Connection::State::kEstablished ||
        connection.state == Connection::State::kDraining) {
      connection.flush();
      connection.ended.reset = true;
      connection.ended.lost += connection.pending.size();
    }
    connection.state = Connection::State::kClosing;
    finish(connection);
  };
  for (const auto& [key, connection] : table) {
    end(*connection);
  }
  for (const auto& connection : draining) {
    end(*connection);
  }
}

void Vsock::resetTransport() {
  dropAll();
  if (host_ != nullptr) {
    eventOwed_ = true;
    sendEvent();
  }
}

void Vsock::wait(Connection& connection, std::chrono::milliseconds patience) {
  connection.deadline = Clock::now() + patience;
  armTimer(timerStep(patience));
}

void Vsock::armTimer(std::chrono::milliseconds delay) {
  if (paused_) {
    return;  // resume() looks
  }
  const auto at = Clock::now() + delay;
  if (timer_ != 0) {
    if (timerAt_ <= at) {
      return;
    }
    host_->loop().cancel(timer_);
  }
  timerAt_ = at;
  timer_ = host_->loop().after(delay, [this] {
    timer_ = 0;
    checkDeadlines();
  });
}

void Vsock::checkDeadlines() {
  const auto now = Clock::now();
  std::vector<std::shared_ptr<Connection>> opening;
  std::vector<std::shared_ptr<Connection>> late;
  bool waiting = false;
  for (const auto& [key, connection] : table_) {
    if (connection->deadline <= now) {
      late.push_back(connection);
    } else if (connection->state == Connection::State::kOpening) {
      opening.push_back(connection);
    } else {
      waiting |= connection->deadline != Clock::time_point::max();
    }
  }
  for (const auto& connection : late) {
    refuseConnect(*connection, ETIMEDOUT);
    drop(*connection, true, true);
  }
  for (const auto& connection : opening) {
    tryOpen(*connection);
    waiting |= connection->state == Connection::State::kOpening;
  }
  if (waiting) {
    armTimer(opening.empty() ? timerStep(std::min(options_.linger, options_.connectTimeout)) : kOpenRetry);
  }
  pump();
}

}  // namespace tsvmm::virtio::vsock
