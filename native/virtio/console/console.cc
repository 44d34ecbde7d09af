#include "virtio/console/console.h"

#include <utility>

namespace tsvmm::virtio {
namespace {

constexpr uint64_t kStateVersion = 1;

// Control messages (virtio 1.2, 5.3.6.2): le32 id, le16 event, le16 value, and what the event adds.
constexpr size_t kMessageSize = 8;
constexpr uint16_t kDeviceReady = 0;
constexpr uint16_t kPortAdd = 1;
constexpr uint16_t kPortReady = 3;
constexpr uint16_t kConsolePort = 4;
constexpr uint16_t kResize = 5;
constexpr uint16_t kPortOpen = 6;
constexpr uint16_t kPortName = 7;

uint16_t little16(const uint8_t* bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

void put16(std::vector<uint8_t>& bytes, uint16_t value) {
  bytes.push_back(static_cast<uint8_t>(value));
  bytes.push_back(static_cast<uint8_t>(value >> 8));
}

}  // namespace

Console::Console(std::vector<ConsolePortOptions> ports, std::function<void()> changed,
                 std::chrono::milliseconds quiet)
    : changed_(std::move(changed)), quiet_(quiet) {
  for (ConsolePortOptions& options : ports) {
    auto port = std::make_unique<Port>();
    port->columns = options.columns;
    port->rows = options.rows;
    port->stream = std::make_unique<ConsolePort>(std::move(options), metrics,
                                                 [this, index = ports_.size()] { hostChanged(index); });
    ports_.push_back(std::move(port));
  }
}

Console::~Console() { reset(); }

void Console::begin(Host& host, bool restored) {
  host_ = &host;
  active_ = std::make_shared<Console*>(this);
  multiport_ = (host.features() & kFeatureMultiport) != 0;
  for (size_t i = 0; i < ports_.size(); i++) {
    if (i == 0 || multiport_) {
      const auto queue = static_cast<uint16_t>(i == 0 ? 0 : 2 * i + 2);
      ports_[i]->stream->activate(host, queue, multiport_, quiet_);
    }
  }
  {
    std::lock_guard lock(mutex_);
    loop_ = &host.loop();
    posted_ = active_;
  }
  if (!restored) {
    takeRequests();
  }
}

void Console::activate(Host& host) { begin(host, false); }

void Console::reset() {
  if (host_ == nullptr) {
    return;
  }
  {
    std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }
  active_.reset();
  for (size_t i = 0; i < ports_.size(); i++) {
    ports_[i]->stream->reset();
    ports_[i]->ready = false;
    ports_[i]->owed = 0;
    ports_[i]->openTold = false;
    setGuestOpen(i, false);
  }
  paused_ = false;
  complained_ = false;
  host_ = nullptr;
}

void Console::notify(uint16_t index) {
  if (paused_) {
    return;
  }
  if (index == kControlReceiveQueue && multiport_) {
    sendControl();
  } else if (index == kControlTransmitQueue && multiport_) {
    receiveControl();
  } else {
    const size_t port = index < 2 ? 0 : (index - 2u) / 2;
    if (port < ports_.size() && (port == 0 || multiport_)) {
      index % 2 == 0 ? ports_[port]->stream->receive() : ports_[port]->stream->transmit();
    }
  }
}

void Console::bad(const std::string& what) {
  metrics.errors.fetch_add(1, std::memory_order_relaxed);
  if (!std::exchange(complained_, true)) {
    host_->log(what);
  }
}

std::vector<uint8_t> Console::message(size_t index, Owed kind) {
  Port& port = *ports_[index];
  static constexpr uint16_t kEvents[] = {kPortAdd, kConsolePort, kPortName, kResize, kPortOpen};
  std::vector<uint8_t> bytes{static_cast<uint8_t>(index), static_cast<uint8_t>(index >> 8), 0, 0};
  put16(bytes, kEvents[kind]);
  if (kind == kOpen) {
    port.openTold = port.stream->hostOpen();
    put16(bytes, port.openTold ? 1 : 0);
    return bytes;
  }
  put16(bytes, 1);
  if (kind == kName) {
    const std::string& name = port.stream->name();
    bytes.insert(bytes.end(), name.begin(), name.end());
  } else if (kind == kSize) {
    // As the text has it. Linux before 6.15, where this was not mended later, reads the rows first.
    put16(bytes, port.columns);
    put16(bytes, port.rows);
  }
  return bytes;
}

bool Console::sendNext(Queue& queue, Chain& chain) {
  for (size_t i = 0; i < ports_.size(); i++) {
    for (uint8_t kind = 0; kind < kOwedKinds; kind++) {
      if ((ports_[i]->owed & 1u << kind) == 0) {
        continue;
      }
      const auto bytes = message(i, static_cast<Owed>(kind));
      if (chain.write(bytes.data(), bytes.size())) {
        ports_[i]->owed &= static_cast<uint8_t>(~(1u << kind));
        metrics.requests.fetch_add(1, std::memory_order_relaxed);
      } else {
        bad("a buffer for control messages has " + std::to_string(chain.writableSize()) +
            " bytes, fewer than the " + std::to_string(bytes.size()) + " of the message");
      }
      queue.push(chain);
      return true;
    }
  }
  return false;
}

void Console::sendControl() {
  if (!multiport_ || paused_) {
    return;
  }
  Queue& queue = host_->queue(kControlReceiveQueue);
  if (!queue.enabled()) {
    return;
  }
  const bool again = queue.drain([&](Chain& chain) { return sendNext(queue, chain); });
  host_->signalQueue(kControlReceiveQueue);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(kControlReceiveQueue) + ": " + queue.brokenReason());
  } else if (again) {
    host_->loop().post([weak = std::weak_ptr(active_)] {
      if (const auto active = weak.lock()) {
        (*active)->sendControl();
      }
    });
  }
}

void Console::receiveControl() {
  Queue& queue = host_->queue(kControlTransmitQueue);
  const bool again = queue.drain([&](Chain& chain) {
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    uint8_t bytes[kMessageSize];
    if (chain.read(bytes, sizeof bytes)) {
      handle(little16(bytes) | static_cast<uint32_t>(little16(bytes + 2)) << 16, little16(bytes + 4),
             little16(bytes + 6));
    } else {
      bad("a control message of " + std::to_string(chain.readableSize()) + " bytes");
    }
    queue.push(chain.head(), 0);
    return true;
  });
  host_->signalQueue(kControlTransmitQueue);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(kControlTransmitQueue) + ": " + queue.brokenReason());
    return;
  }
  sendControl();
  if (again) {
    host_->loop().post([weak = std::weak_ptr(active_)] {
      const auto active = weak.lock();
      if (active && (*active)->host_->queue(kControlTransmitQueue).enabled()) {
        (*active)->notify(kControlTransmitQueue);
      }
    });
  }
}

void Console::handle(uint32_t id, uint16_t event, uint16_t value) {
  if (event == kDeviceReady) {
    if (value != 1) {
      bad("the driver could not set the console up");
      return;
    }
    for (size_t i = 0; i < ports_.size(); i++) {
      ports_[i]->ready = false;
      ports_[i]->owed = 0;
      setGuestOpen(i, false);
      owe(i, kAdd);
    }
    return;
  }
  if (id >= ports_.size()) {
    bad("a control message for port " + std::to_string(id) + " of " + std::to_string(ports_.size()));
    return;
  }
  Port& port = *ports_[id];
  if (event == kPortReady) {
    port.ready = value == 1;
    if (!port.ready) {
      bad("the driver has no room for port " + std::to_string(id));
      return;
    }
    if (port.stream->console()) {
      owe(id, kConsole);
      if (port.columns != 0 || port.rows != 0) {
        owe(id, kSize);
      }
    }
    if (!port.stream->name().empty()) {
      owe(id, kName);
    }
    port.openTold = false;
    if (port.stream->hostOpen()) {
      owe(id, kOpen);
    }
  } else if (event == kPortOpen) {
    setGuestOpen(id, value != 0);
  } else {
    bad("a control message of kind " + std::to_string(event) + " for port " + std::to_string(id));
  }
}

void Console::setGuestOpen(size_t index, bool open) {
  Port& port = *ports_[index];
  if (port.guestOpen == open) {
    return;
  }
  port.guestOpen = open;
  port.opens.fetch_add(1, std::memory_order_relaxed);
  if (multiport_) {
    port.stream->openInput(open);
  }
  if (changed_) {
    changed_();
  }
}

void Console::hostChanged(size_t index) {
  Port& port = *ports_[index];
  if (port.ready && port.openTold != port.stream->hostOpen()) {
    owe(index, kOpen);
    sendControl();
  }
}

void Console::postRequests() {
  if (loop_ != nullptr) {
    loop_->post([weak = posted_] {
      if (const auto active = weak.lock()) {
        (*active)->takeRequests();
      }
    });
  }
}

void Console::resize(size_t port, uint16_t columns, uint16_t rows) {
  std::lock_guard lock(mutex_);
  ports_[port]->resized = true;
  ports_[port]->newColumns = columns;
  ports_[port]->newRows = rows;
  postRequests();
}

void Console::hangUp(size_t port) {
  std::lock_guard lock(mutex_);
  ports_[port]->hungUp = true;
  postRequests();
}

void Console::takeRequests() {
  if (paused_) {
    return;
  }
  for (size_t i = 0; i < ports_.size(); i++) {
    Port& port = *ports_[i];
    bool resized;
    bool hungUp;
    {
      std::lock_guard lock(mutex_);
      resized = std::exchange(port.resized, false);
      hungUp = std::exchange(port.hungUp, false);
      if (resized) {
        port.columns = port.newColumns;
        port.rows = port.newRows;
      }
    }
    if (resized) {
      applySize(i);
    }
    if (hungUp) {
      port.stream->hangUp();
    }
  }
}

void Console::applySize(size_t index) {
  const Port& port = *ports_[index];
  if (index == 0) {
    // 5.3.4: le16 cols, le16 rows.
    std::vector<uint8_t> bytes;
    put16(bytes, port.columns);
    put16(bytes, port.rows);
    host_->updateConfig(0, bytes);
  }
  if (multiport_ && port.ready && port.stream->console()) {
    owe(index, kSize);
    sendControl();
  }
}

void Console::pause(std::function<void()> paused) {
  paused_ = true;
  for (const auto& port : ports_) {
    port->stream->pause();
  }
  paused();
}

void Console::resume() {
  paused_ = false;
  for (size_t i = 0; i < ports_.size(); i++) {
    if (i == 0 || multiport_) {
      ports_[i]->stream->resume();
      hostChanged(i);
    }
  }
  takeRequests();
  sendControl();
}

Value Console::save() {
  Value::List list;
  for (size_t i = 0; i < ports_.size(); i++) {
    const Port& port = *ports_[i];
    Value::Record saved;
    saved["ready"] = port.ready;
    saved["guestOpen"] = port.guestOpen;
    saved["openTold"] = port.openTold;
    saved["owed"] = port.owed;
    saved["columns"] = port.columns;
    saved["rows"] = port.rows;
    saved["stream"] = port.stream->save();
    list.emplace_back(std::move(saved));
  }
  Value::Record state;
  state["version"] = kStateVersion;
  state["ports"] = std::move(list);
  return state;
}

void Console::restore(Host& host, const Value& state) {
  if (state.integer("version") != kStateVersion) {
    throw ValueError("version: expected " + std::to_string(kStateVersion));
  }
  const Value::List& list = state.list("ports");
  if (list.size() != ports_.size()) {
    throw ValueError("ports: expected " + std::to_string(ports_.size()) + ", got " +
                     std::to_string(list.size()));
  }
  begin(host, true);
  paused_ = true;
  try {
    for (size_t i = 0; i < list.size(); i++) {
      Port& port = *ports_[i];
      port.ready = list[i].boolean("ready");
      port.openTold = list[i].boolean("openTold");
      port.owed = static_cast<uint8_t>(list[i].integer("owed", (1u << kOwedKinds) - 1));
      port.columns = list[i].number<uint16_t>("columns");
      port.rows = list[i].number<uint16_t>("rows");
      if (i == 0 || multiport_) {
        port.stream->restore(list[i].at("stream"));
      }
      if (list[i].boolean("guestOpen")) {
        port.guestOpen = true;
        port.opens.fetch_add(1, std::memory_order_relaxed);
        if (changed_) {
          changed_();
        }
      }
    }
  } catch (const ValueError&) {
    reset();
    throw;
  }
}

}  // namespace tsvmm::virtio
