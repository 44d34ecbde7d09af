#include "virtio/net/net_device.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace tsvmm::virtio::net {
namespace {

constexpr uint64_t kStateVersion = 1;
constexpr size_t kMaxParts = 1024;  // IOV_MAX

// Virtio 1.2, 5.1.4: le16 status.
constexpr uint32_t kStatusOffset = 6;
constexpr uint8_t kLinkUp = 1;

// Told at once: enough for a driver not to run out of buffers or a sender of its share before the timer.
constexpr uint32_t kUntoldFrames = 32;
constexpr uint64_t kUntoldBytes = 64 << 10;
constexpr std::chrono::milliseconds kSoon{1};

}  // namespace

NetDevice::NetDevice(std::unique_ptr<Backend> backend, NetOptions options)
    : backend_(std::move(backend)),
      options_(options),
      pairs_(backend_->pairs()),
      coming_(2 * pairs_.size() + 1),
      toGuest_(options.toGuest),
      fromGuest_(options.fromGuest),
      overflow_(new uint8_t[sizeof(Header) + kMaxFrame]),
      parts_(kMaxParts),
      linkTold_(options.linkUp),
      linkWanted_(options.linkUp),
      linkUp_(options.linkUp) {
  filter_.setMac(options.mac);
  backend_->setCarrier(linkUp_);
}

NetDevice::~NetDevice() { reset(); }

void NetDevice::begin(Host& host) {
  host_ = &host;
  features_ = host.features();
  active_ = std::make_shared<NetDevice*>(this);
  mergeable_ = negotiated(kFeatureMergeableBuffers);
  // 5.1.2: the control queue follows the pairs that could be used.
  controlQueue_ = negotiated(kFeatureMultiQueue) ? receiveQueue(backend_->pairs()) : uint16_t{2};
  std::lock_guard lock(linkMutex_);
  linkUp_ = linkWanted_ && !lost_;
  linkLoop_ = &host.loop();
  linkActive_ = active_;
}

void NetDevice::activate(Host& host) {
  if (!backend_) {
    host.fail("the network has been closed");
    return;
  }
  begin(host);
  paused_ = false;
  filter_.reset(filter_.mac(), negotiated(kFeatureControlVlan));
  applyOffloads(features_ & kGuestOffloads);
  usePairs(1);
  backend_->setCarrier(linkUp_);
  tellLink();
}

void NetDevice::reset() {
  if (host_ == nullptr) {
    return;
  }
  {
    std::lock_guard lock(linkMutex_);
    linkLoop_ = nullptr;
  }
  for (uint16_t i = 0; i < pairs_.size(); i++) {
    unwatch(i);
    pairs_[i] = Pair();
  }
  active_.reset();
  std::fill(coming_.begin(), coming_.end(), false);
  tellingSoon_ = false;
  saidDown_ = false;
  untoldFrames_ = 0;
  untoldBytes_ = 0;
  host_ = nullptr;
}

bool NetDevice::close() {
  if (host_ != nullptr) {
    return false;
  }
  backend_.reset();
  return true;
}

void NetDevice::pause(std::function<void()> paused) {
  paused_ = true;
  for (uint16_t i = 0; i < pairsInUse_; i++) {
    pairs_[i].buffers.giveBack(host_->queue(receiveQueue(i)));
  }
  paused();
}

void NetDevice::resume() {
  paused_ = false;
  tellLink();
  for (uint16_t i = 0; i < pairsInUse_; i++) {
    pairs_[i].readable = true;
    pairs_[i].blocked = false;
  }
}

Value NetDevice::save() {
  return Value::Record{{"version", kStateVersion},
                       {"filter", filter_.save()},
                       {"offloads", offloads_},
                       {"pairs", pairsInUse_},
                       {"linkUp", linkTold_}};
}

void NetDevice::restore(Host& host, const Value& state) {
  if (!backend_) {
    throw ValueError("the network has been closed");
  }
  if (const uint64_t version = state.integer("version"); version != kStateVersion) {
    throw ValueError("version: this build reads version " + std::to_string(kStateVersion) + ", got " +
                     std::to_string(version));
  }
  const uint64_t offloads = state.integer("offloads");
  if ((offloads & ~(host.features() & kGuestOffloads)) != 0) {
    throw ValueError("offloads: has bits that were not negotiated");
  }
  const auto pairs = static_cast<uint16_t>(state.integer("pairs", pairs_.size()));
  if (pairs == 0) {
    throw ValueError("pairs: expected at least 1, got 0");
  }
  const bool linkUp = state.boolean("linkUp");
  FrameFilter filter;
  filter.restore(state.at("filter"));
  // Nothing throws from here on.
  filter_ = std::move(filter);
  linkTold_ = linkUp;
  paused_ = true;
  begin(host);
  applyOffloads(offloads);
  usePairs(pairs);
}

void NetDevice::applyOffloads(uint64_t offloads) {
  offloads_ = offloads;
  const int error = backend_->setOffloads(offloads);
  if (error != 0 && !backend_->gone(error)) {
    host_->log(backend_->name() + ": offloads: " + std::generic_category().message(error));
  }
  const bool segmented = (offloads & (kFeatureGuestTso4 | kFeatureGuestTso6 | kFeatureGuestUfo)) != 0;
  const size_t unsegmented = std::max<uint32_t>(options_.mtu, 1500) + kEthernetHeader + 8;
  longest_ = sizeof(Header) + (segmented ? kMaxFrame : std::min(unsegmented, kMaxFrame));
}

void NetDevice::usePairs(uint16_t count) {
  pairsInUse_ = count;
  for (uint16_t i = count; i < pairs_.size(); i++) {
    unwatch(i);
    pairs_[i].buffers.giveBack(host_->queue(receiveQueue(i)));
    pairs_[i] = Pair();
  }
  const int error = backend_->setActivePairs(count);
  if (error != 0 && !backend_->gone(error)) {
    host_->log(backend_->name() + ": queues: " + std::generic_category().message(error));
  }
  for (uint16_t i = 0; i < count; i++) {
    watch(i);
  }
}

void NetDevice::watch(uint16_t index) {
  Pair& pair = pairs_[index];
  if (pair.watched || lost_) {
    return;
  }
  const int error = host_->loop().add(backend_->descriptor(index), EPOLLIN | EPOLLET,
                                      [this, index](uint32_t events) { happened(index, events); });
  pair.watched = error == 0;
  if (error != 0) {
    host_->log(backend_->name() + ": cannot be waited on: " + std::generic_category().message(error));
  }
}

void NetDevice::unwatch(uint16_t index) {
  if (std::exchange(pairs_[index].watched, false)) {
    host_->loop().remove(backend_->descriptor(index));
  }
}

void NetDevice::happened(uint16_t index, uint32_t events) {
  Pair& pair = pairs_[index];
  if (pair.blocked && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    if (backend_->flush(index)) {
      pair.blocked = false;
      host_->loop().modify(backend_->descriptor(index), EPOLLIN | EPOLLET);
      transmit(index);
    }
  }
  if ((events & ~uint32_t{EPOLLOUT}) != 0) {
    pair.readable = true;
    receive(index);
  }
  if ((events & (EPOLLERR | EPOLLHUP)) != 0 && pair.starved) {
    lost(kGone);  // which reading would have told
  }
}

void NetDevice::notify(uint16_t index) {
  if (index == controlQueue_ && negotiated(kFeatureControlQueue)) {
    control();
  } else if (index / 2 < pairsInUse_) {
    const auto pair = static_cast<uint16_t>(index / 2);
    if (index % 2 != 0) {
      transmit(pair);
    } else {
      pairs_[pair].starved = false;
      receive(pair);
    }
  }
}

void NetDevice::come(uint16_t queue) {
  if (!coming_[queue]) {
    coming_[queue] = true;
    host_->loop().post(whileActive([queue](NetDevice& self) { self.arrive(queue); }));
  }
}

void NetDevice::comeAfter(std::chrono::nanoseconds delay, uint16_t queue) {
  if (!coming_[queue]) {
    coming_[queue] = true;
    host_->loop().after(delay, whileActive([queue](NetDevice& self) { self.arrive(queue); }));
  }
}

void NetDevice::arrive(uint16_t queue) {
  coming_[queue] = false;
  if (host_->queue(queue).enabled()) {
    notify(queue);
  }
}

void NetDevice::checkBroken(uint16_t queue) {
  if (host_->queue(queue).broken()) {
    host_->fail("queue " + std::to_string(queue) + ": " + host_->queue(queue).brokenReason());
  }
}

void NetDevice::tell() {
  bool wanted = false;
  for (uint16_t i = 0; i < 2 * pairsInUse_; i++) {
    wanted = host_->queue(i).needsInterrupt() || wanted;
  }
  untoldFrames_ = 0;
  untoldBytes_ = 0;
  if (wanted) {
    host_->interruptDriver();
  }
}

void NetDevice::tellSoon() {
  const uint32_t frames = std::min<uint32_t>(kUntoldFrames, host_->queue(transmitQueue(0)).size() / 4);
  if (untoldFrames_ > frames || untoldBytes_ >= kUntoldBytes) {
    tell();
  } else if (untoldFrames_ != 0 && !tellingSoon_) {
    tellingSoon_ = true;
    host_->loop().after(kSoon, whileActive([](NetDevice& self) {
                          self.tellingSoon_ = false;
                          if (!self.paused_) {
                            self.tell();
                          }
                        }));
  }
}

void NetDevice::lost(const char* why) {
  if (std::exchange(lost_, true)) {
    return;
  }
  host_->log(backend_->name() + " " + why + ": the guest's cable is unplugged");
  for (uint16_t i = 0; i < pairs_.size(); i++) {
    unwatch(i);
    pairs_[i].waiting.clear();
    if (std::exchange(pairs_[i].blocked, false)) {
      come(transmitQueue(i));
    }
  }
  {
    std::lock_guard lock(linkMutex_);
    linkUp_ = false;
  }
  tellLink();
}

void NetDevice::setLink(bool up) {
  std::lock_guard lock(linkMutex_);
  linkWanted_ = up;
  if (linkLoop_ == nullptr) {
    return;
  }
  linkLoop_->post([weak = linkActive_] {
    if (const auto active = weak.lock()) {
      NetDevice& self = **active;
      {
        std::lock_guard inner(self.linkMutex_);
        self.linkUp_ = self.linkWanted_ && !self.lost_;
      }
      self.backend_->setCarrier(self.linkUp_);
      self.tellLink();
    }
  });
}

void NetDevice::tellLink() {
  if (!paused_ && linkUp_ != linkTold_) {
    linkTold_ = linkUp_;
    const uint8_t status[2] = {linkUp_ ? kLinkUp : uint8_t{0}, 0};
    host_->updateConfig(kStatusOffset, status);
  }
}

}  // namespace tsvmm::virtio::net
