#include <cstddef>
#include <utility>

#include "virtio/blk/blk.h"

/// A block device's life beside its requests: activation, pause, state, another disk, rate limits.
namespace tsvmm::virtio {
namespace {

constexpr uint64_t kStateVersion = 1;
// Virtio 1.2, 5.2.4: fields of the configuration space.
constexpr uint32_t kCapacityOffset = 0;
constexpr uint32_t kWritebackOffset = 32;

}  // namespace

Blk::Blk(std::unique_ptr<Disk> disk, BlkOptions options)
    : options_(std::move(options)),
      limiter_(options_.limits),
      disk_(std::move(disk)),
      sectors_(options_.sectors),
      toldSectors_(options_.sectors) {}

Blk::~Blk() {
  reset();
  for (Replacement& replacement : replacements_) {
    replacement.done(false, std::move(replacement.disk));
  }
}

void Blk::activate(Host& host) {
  std::unique_lock lock(mutex_);
  if (!disk_) {
    lock.unlock();
    host.fail("the disk has been closed");
    return;
  }
  host_ = &host;
  features_ = host.features();
  active_ = std::make_shared<Blk*>(this);
  loop_ = &host.loop();
  posting_ = active_;
  disk_->attach(host.loop(), *this);
  lock.unlock();
  tellCapacity();
}

void Blk::reset() {
  if (host_ == nullptr) {
    return;
  }
  std::vector<Replacement> installed;
  {
    std::lock_guard lock(mutex_);
    disk_->detach();
    loop_ = nullptr;
    posting_.reset();
    installed = install();
  }
  active_.reset();
  host_->loop().cancel(limiterTimer_);
  limiterTimer_ = 0;
  throttled_ = touched_ = 0;
  inFlight_.clear();
  spare_.clear();
  replacing_ = paused_ = false;
  pauseDone_ = nullptr;
  host_ = nullptr;
  tell(std::move(installed));
}

bool Blk::close() {
  std::lock_guard lock(mutex_);
  if (loop_ != nullptr) {
    return false;
  }
  disk_.reset();
  return true;
}

uint64_t Blk::sectors() {
  std::lock_guard lock(mutex_);
  return sectors_;
}

void Blk::pause(std::function<void()> paused) {
  paused_ = true;
  if (inFlight_.empty()) {
    paused();
  } else {
    pauseDone_ = std::move(paused);
  }
}

void Blk::resume() {
  paused_ = false;
  pauseDone_ = nullptr;
  tellCapacity();
  comeToAll();
}

Value Blk::save() {
  return Value::Record{{"version", kStateVersion}, {"sectors", toldSectors_}, {"writeback", writeback_}};
}

void Blk::restore(Host& host, const Value& state) {
  if (state.integer("version") != kStateVersion) {
    throw ValueError("version: expected " + std::to_string(kStateVersion));
  }
  const uint64_t saved = state.integer("sectors");
  const bool writeback = state.boolean("writeback");
  {
    std::lock_guard lock(mutex_);
    if (sectors_ < saved) {
      throw ValueError("sectors: the disk has " + std::to_string(sectors_) +
                       " sectors, fewer than the saved guest's " + std::to_string(saved));
    }
    toldSectors_ = saved;
  }
  paused_ = true;
  activate(host);
  writeback_ = writeback;
}

void Blk::configWritten(uint32_t offset, std::span<const uint8_t> bytes) {
  if (offset == kWritebackOffset && bytes.size() == 1) {
    writeback_ = bytes[0] != 0;
  }
}

void Blk::replace(std::unique_ptr<Disk> disk, uint64_t sectors, Replaced done) {
  std::vector<Replacement> installed;
  {
    std::lock_guard lock(mutex_);
    replacements_.push_back({std::move(disk), sectors, std::move(done)});
    if (loop_ != nullptr) {
      replaceSoon();
      return;
    }
    installed = install();
  }
  tell(std::move(installed));
}

/// Unless the device is reset before. With mutex_ or on the loop.
void Blk::replaceSoon() {
  loop_->post([weak = posting_] {
    if (const auto active = weak.lock()) {
      (*active)->replaceWhenIdle();
    }
  });
}

void Blk::replaceWhenIdle() {
  std::vector<Replacement> installed;
  {
    std::lock_guard lock(mutex_);
    if (replacements_.empty()) {
      return;  // an earlier call has put it in place
    }
    if (!inFlight_.empty()) {
      replacing_ = true;  // until then no request is taken; settled() comes here again
      return;
    }
    disk_->detach();
    installed = install();
    disk_->attach(host_->loop(), *this);
  }
  replacing_ = false;
  if (!paused_) {
    tellCapacity();
    comeToAll();
  }
  tell(std::move(installed));
}

std::vector<Blk::Replacement> Blk::install() {
  for (Replacement& replacement : replacements_) {
    std::swap(disk_, replacement.disk);
    sectors_ = replacement.sectors;
  }
  return std::exchange(replacements_, {});
}

void Blk::tell(std::vector<Replacement> replaced) {
  for (Replacement& replacement : replaced) {
    replacement.done(true, std::move(replacement.disk));
  }
}

void Blk::tellCapacity() {
  if (paused_ || toldSectors_ == sectors_) {
    return;
  }
  toldSectors_ = sectors_;
  uint8_t bytes[8];
  for (size_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = static_cast<uint8_t>(sectors_ >> (8 * i));
  }
  host_->updateConfig(kCapacityOffset, bytes);
}

void Blk::awaitLimiter(uint16_t index) {
  throttled_ |= 1u << index;
  if (limiterTimer_ != 0) {
    return;
  }
  limiterTimer_ = host_->loop().after(limiter_.wait(), [this] {
    limiterTimer_ = 0;
    const uint32_t throttled = std::exchange(throttled_, 0);
    for (uint16_t i = 0; i < options_.queues; i++) {
      if ((throttled & 1u << i) != 0 && host_->queue(i).enabled()) {
        notify(i);
      }
    }
  });
}

}  // namespace tsvmm::virtio
