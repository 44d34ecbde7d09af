#include "virtio/balloon/balloon.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace tsvmm::virtio {
namespace {

constexpr uint64_t kPage = 4096;
// What one visit gives back before other devices have their turn: each piece may be a system call and an
// interruption of every vCPU.
constexpr size_t kVisitPfns = 512;
constexpr uint64_t kVisitBytes = 8 << 20;

// The configuration space (virtio 1.2, 5.5.4).
constexpr uint32_t kConfigTarget = 0;
constexpr uint32_t kConfigActual = 4;
constexpr size_t kActual = 0;  // within driverConfig_
constexpr size_t kPoison = 8;

constexpr uint64_t kStateVersion = 1;

uint32_t little(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

void putLittle(uint8_t* bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) {
    bytes[i] = static_cast<uint8_t>(value >> 8 * i);
  }
}

}  // namespace

Balloon::Balloon(std::function<void()> changed, uint32_t target)
    : changed_(std::move(changed)), target_(target) {}

Balloon::~Balloon() { reset(); }

void Balloon::begin(Host& host) {
  host_ = &host;
  active_ = std::make_shared<Balloon*>(this);
  statisticsQueue_ = (host.features() & kFeatureStatistics) != 0;
  reportingQueue_ = 0;
  if ((host.features() & kFeatureReporting) != 0) {
    const uint16_t packed = statisticsQueue_ ? kStatisticsQueue + 1 : kStatisticsQueue;
    reportingQueue_ = host.queue(kReportingQueue).enabled() ? kReportingQueue : packed;
  }
  std::lock_guard lock(mutex_);
  loop_ = &host.loop();
  posted_ = active_;
}

void Balloon::activate(Host& host) {
  begin(host);
  if (std::exchange(staleConfig_, false)) {
    host.updateConfig(kConfigActual, driverConfig_);
  }
  tellTarget();
  askStatistics();
}

void Balloon::reset() {
  if (host_ == nullptr) {
    return;
  }
  {
    std::lock_guard lock(mutex_);
    loop_ = nullptr;
    statisticsRequested_ = statisticsRequested_ || statisticsWanted_;  // for the next driver to answer
  }
  active_.reset();
  work_ = {};
  visitPosted_ = false;
  paused_ = false;
  whenPaused_ = {};
  statisticsHead_.reset();
  statisticsWanted_ = false;
  complained_ = false;
  host_ = nullptr;
  if (driverConfig_ != std::array<uint8_t, 12>{}) {
    driverConfig_ = {};
    staleConfig_ = true;
  }
  if (actual_.exchange(0) != 0 && changed_) {
    changed_();
  }
}

void Balloon::post(void (Balloon::*function)()) {
  host_->loop().post([weak = std::weak_ptr(active_), function] {
    if (const auto active = weak.lock()) {
      ((**active).*function)();
    }
  });
}

void Balloon::notify(uint16_t index) {
  if (paused_) {
    return;
  }
  if (index == kDeflateQueue) {
    deflate();
  } else if (statisticsQueue_ && index == kStatisticsQueue) {
    takeStatisticsBuffers();
  } else if (index == kInflateQueue || (reportingQueue_ != 0 && index == reportingQueue_)) {
    if (!visitPosted_) {
      visit();
    }
  }
}

bool Balloon::checkBroken(uint16_t index) {
  const Queue& queue = host_->queue(index);
  if (!queue.broken()) {
    return false;
  }
  host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  return true;
}

void Balloon::complain(const std::string& what) {
  metrics.errors.fetch_add(1, std::memory_order_relaxed);
  if (!std::exchange(complained_, true)) {
    host_->log(what);
  }
}

bool Balloon::takeFrom(uint16_t index) {
  Queue& queue = host_->queue(index);
  if (!queue.enabled() || queue.broken()) {
    return false;
  }
  do {
    queue.disableNotifications();
    if (queue.pop(work_.chain) == Queue::Pop::kChain) {
      work_.active = true;
      work_.queue = index;
      work_.slice = 0;
      work_.offset = 0;
      metrics.requests.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
  } while (!queue.broken() && queue.enableNotifications());
  return false;
}

bool Balloon::take() {
  if (paused_) {
    return false;
  }
  return takeFrom(kInflateQueue) || (reportingQueue_ != 0 && takeFrom(reportingQueue_));
}

void Balloon::visit() {
  visitPosted_ = false;
  // A round of the ring at most: requests of one page each are not to keep the thread for themselves either.
  const uint32_t rounds = std::max(host_->queue(kInflateQueue).size(),
                                   reportingQueue_ == 0 ? uint16_t{0} : host_->queue(reportingQueue_).size());
  for (uint32_t round = 0; round < rounds || work_.active; round++) {
    if (!work_.active && !take()) {
      if (checkBroken(kInflateQueue) || (reportingQueue_ != 0 && checkBroken(reportingQueue_))) {
        return;
      }
      finishPause();
      return;
    }
    const bool reporting = work_.queue != kInflateQueue;
    const bool heavy = reporting || work_.chain.readableLeft() >= kVisitPfns * sizeof(uint32_t) / 2;
    const bool done = reporting ? report() : inflate();
    if (done) {
      work_.active = false;
      Queue& queue = host_->queue(work_.queue);
      queue.push(work_.chain.head(), 0);
      host_->signalQueue(work_.queue);
      finishPause();
    }
    if (heavy || !done) {
      break;
    }
  }
  visitPosted_ = true;
  post(&Balloon::visit);
}

void Balloon::discard(const GuestSlice& memory) {
  const int error = host_->memory().discard(memory);
  if (error != 0) {
    complain("memory is not given back: " + std::generic_category().message(error));
  } else {
    metrics.bytesWritten.fetch_add(memory.size(), std::memory_order_relaxed);
  }
}

bool Balloon::inflate() {
  Chain& chain = work_.chain;
  if (chain.readableSize() / sizeof(uint32_t) > kMaxPfns) {
    complain("a request has " + std::to_string(chain.readableSize() / sizeof(uint32_t)) +
             " page numbers, more than " + std::to_string(kMaxPfns));
    return true;
  }
  uint32_t pfns[kVisitPfns];
  const size_t count = std::min<size_t>(kVisitPfns, chain.readableLeft() / sizeof(uint32_t));
  chain.read(pfns, count * sizeof(uint32_t));
  // Neighbours go together: a system call for all of them, and whole huge pages at once.
  std::sort(pfns, pfns + count);
  const size_t distinct = static_cast<size_t>(std::unique(pfns, pfns + count) - pfns);
  const GuestMemory& memory = host_->memory();
  for (size_t i = 0; i < distinct;) {
    const uint64_t address = pfns[i] * kPage;
    auto run = memory.slice(address, kPage);
    if (!run) {
      complain("a page number is outside RAM: " + std::to_string(pfns[i]));
      i++;
      continue;
    }
    size_t length = 1;
    while (i + length < distinct && pfns[i + length] == pfns[i] + length) {
      const auto longer = memory.slice(address, (length + 1) * kPage);
      if (!longer) {
        break;
      }
      run = longer;
      length++;
    }
    discard(*run);
    i += length;
  }
  return chain.readableLeft() < sizeof(uint32_t);
}

bool Balloon::report() {
  // 5.5.6.7: a page must then read as the driver's poison value. What is given back reads as zeros.
  if ((host_->features() & kFeaturePoison) != 0 && little(driverConfig_.data() + kPoison) != 0) {
    return true;
  }
  uint64_t left = kVisitBytes;
  const auto& slices = work_.chain.writable();
  while (work_.slice < slices.size()) {
    const GuestSlice& slice = slices[work_.slice];
    if (work_.offset >= slice.size()) {
      work_.slice++;
      work_.offset = 0;
      continue;
    }
    if (left == 0) {
      return false;
    }
    const GuestSlice part = slice.part(work_.offset, left);
    discard(part);
    work_.offset += part.size();
    left -= part.size();
  }
  return true;
}

void Balloon::deflate() {
  Queue& queue = host_->queue(kDeflateQueue);
  const bool again = queue.drain([&](Chain& chain) {
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    const uint64_t pages = std::min(chain.readableSize() / sizeof(uint32_t), kMaxPfns);
    metrics.bytesRead.fetch_add(pages * kPage, std::memory_order_relaxed);
    queue.push(chain.head(), 0);
    return true;
  });
  host_->signalQueue(kDeflateQueue);
  if (!checkBroken(kDeflateQueue) && again) {
    host_->loop().post([weak = std::weak_ptr(active_)] {
      if (const auto active = weak.lock()) {
        (*active)->notify(kDeflateQueue);
      }
    });
  }
}

void Balloon::takeStatisticsBuffers() {
  Queue& queue = host_->queue(kStatisticsQueue);
  if (!queue.enabled()) {
    return;
  }
  bool came = false;
  queue.drain([&](Chain& chain) {
    metrics.requests.fetch_add(1, std::memory_order_relaxed);
    if (statisticsHead_) {
      // The text knows one buffer; of several the last one stays.
      queue.push(*statisticsHead_, 0);
    }
    statisticsHead_ = chain.head();
    if (std::exchange(statisticsWanted_, false)) {
      std::vector<uint8_t> bytes(std::min<uint64_t>(chain.readableSize(), kMaxStatistics));
      chain.read(bytes.data(), bytes.size());
      came = true;
      std::lock_guard lock(mutex_);
      statistics_ = std::move(bytes);
    }
    return true;
  });
  host_->signalQueue(kStatisticsQueue);
  if (!checkBroken(kStatisticsQueue)) {
    if (came && changed_) {
      changed_();
    }
    askStatistics();
  }
}

void Balloon::requestStatistics() {
  std::lock_guard lock(mutex_);
  statisticsRequested_ = true;
  if (loop_ != nullptr) {
    loop_->post([weak = posted_] {
      if (const auto active = weak.lock()) {
        (*active)->askStatistics();
      }
    });
  }
}

void Balloon::askStatistics() {
  if (!statisticsQueue_ || paused_) {
    return;
  }
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(statisticsRequested_, false)) {
      return;
    }
    statistics_.reset();
  }
  statisticsWanted_ = true;
  if (statisticsHead_) {
    // 5.5.6.3: using the buffer is the request; the driver queues it again with fresh values.
    Queue& queue = host_->queue(kStatisticsQueue);
    queue.push(*std::exchange(statisticsHead_, std::nullopt), 0);
    host_->signalQueue(kStatisticsQueue);
  }
}

std::optional<std::vector<uint8_t>> Balloon::takeStatistics() {
  std::lock_guard lock(mutex_);
  return std::exchange(statistics_, std::nullopt);
}

void Balloon::setTarget(uint32_t pages) {
  std::lock_guard lock(mutex_);
  target_ = pages;
  targetChanged_ = true;
  if (loop_ != nullptr) {
    loop_->post([weak = posted_] {
      if (const auto active = weak.lock()) {
        (*active)->tellTarget();
      }
    });
  }
}

uint32_t Balloon::target() {
  std::lock_guard lock(mutex_);
  return target_;
}

void Balloon::tellTarget() {
  if (paused_) {
    return;
  }
  uint8_t bytes[4];
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(targetChanged_, false)) {
      return;
    }
    putLittle(bytes, target_);
  }
  host_->updateConfig(kConfigTarget, bytes);
}

void Balloon::configWritten(uint32_t offset, std::span<const uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); i++) {
    const uint64_t at = uint64_t{offset} + i;
    if (at >= kConfigActual && at - kConfigActual < driverConfig_.size()) {
      driverConfig_[at - kConfigActual] = bytes[i];
    }
  }
  const uint32_t now = little(driverConfig_.data() + kActual);
  if (actual_.exchange(now) != now && changed_) {
    changed_();
  }
}

void Balloon::pause(std::function<void()> paused) {
  paused_ = true;
  whenPaused_ = std::move(paused);
  finishPause();
}

void Balloon::finishPause() {
  if (paused_ && !work_.active) {
    if (const auto done = std::exchange(whenPaused_, {})) {
      done();
    }
  }
}

void Balloon::resume() {
  paused_ = false;
  whenPaused_ = {};
  tellTarget();
  askStatistics();
}

Value Balloon::save() {
  Value::Record state;
  state["version"] = kStateVersion;
  state["target"] = target();
  state["driverConfig"] = Value::Bytes(driverConfig_.begin(), driverConfig_.end());
  state["statisticsHead"] = statisticsHead_ ? Value(*statisticsHead_) : Value();
  return state;
}

void Balloon::restore(Host& host, const Value& state) {
  if (state.integer("version") != kStateVersion) {
    throw ValueError("version: expected " + std::to_string(kStateVersion));
  }
  const Value::Bytes& config = state.bytes("driverConfig");
  if (config.size() != driverConfig_.size()) {
    throw ValueError("driverConfig: expected " + std::to_string(driverConfig_.size()) + " bytes, got " +
                     std::to_string(config.size()));
  }
  const auto target = state.number<uint32_t>("target");
  std::optional<uint16_t> head;
  if (!state.at("statisticsHead").isNull()) {
    head = state.number<uint16_t>("statisticsHead");
  }
  begin(host);
  paused_ = true;
  {
    // What was asked for before the state was there counts more.
    std::lock_guard lock(mutex_);
    target_ = targetChanged_ ? target_ : target;
  }
  std::copy(config.begin(), config.end(), driverConfig_.begin());
  actual_ = little(driverConfig_.data() + kActual);
  if (head) {
    Chain chain;
    if (!statisticsQueue_ || !host.queue(kStatisticsQueue).reopen(*head, chain)) {
      reset();
      throw ValueError("statisticsHead: no chain of the statistics queue: " + std::to_string(*head));
    }
    statisticsHead_ = head;
  }
}

}  // namespace tsvmm::virtio
