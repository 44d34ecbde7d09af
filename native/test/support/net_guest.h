#pragma once

#include <sys/socket.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/fake_host.h"
#include "virtio/net/net_device.h"

/// A network device between a driver's rings and a backend that the test plays.
namespace tsvmm::test {

using virtio::net::Header;
using virtio::net::MacAddress;

inline constexpr MacAddress kGuestMac = {2, 0, 0, 0, 0, 1};

/// A backend of one datagram socket a pair: each datagram is a header and a frame, as with a TAP device.
class FakeTap final : public virtio::net::Backend {
 public:
  explicit FakeTap(uint16_t pairs) {
    for (uint16_t i = 0; i < pairs; i++) {
      int ends[2];
      if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
        throw std::runtime_error("socketpair");
      }
      device_.emplace_back(ends[0]);
      network.emplace_back(ends[1]);
    }
  }
  uint16_t pairs() const override { return static_cast<uint16_t>(device_.size()); }
  int descriptor(uint16_t pair) const override { return device_[pair].get(); }
  ssize_t read(uint16_t pair, std::span<const iovec> parts) override {
    reads++;
    const ssize_t count = readv(device_[pair].get(), parts.data(), static_cast<int>(parts.size()));
    return count >= 0 ? count : -errno;
  }
  int write(uint16_t pair, const Header& header, std::span<iovec> parts, size_t) override {
    if (writeError != 0) {
      return -writeError;
    }
    parts[0] = {const_cast<Header*>(&header), sizeof header};
    return writev(device_[pair].get(), parts.data(), static_cast<int>(parts.size())) >= 0 ? 0 : -errno;
  }
  bool gone(int error) const override { return error == EBADFD; }
  int setOffloads(uint64_t features) override {
    offloads = features;
    return 0;
  }
  int setActivePairs(uint16_t count) override {
    active = count;
    return 0;
  }
  void setCarrier(bool up) override { carrier = up; }
  std::string name() const override { return "tap fake"; }

  /// A frame that the network sends to the guest.
  bool put(const std::string& frame, uint16_t pair = 0) {
    const Header header;
    const std::string all = std::string(reinterpret_cast<const char*>(&header), sizeof header) + frame;
    return send(network[pair].get(), all.data(), all.size(), 0) == static_cast<ssize_t>(all.size());
  }
  /// What the guest has sent, with its header; empty: nothing.
  std::string take(uint16_t pair = 0) {
    std::string all(128 << 10, '\0');
    const ssize_t count = recv(network[pair].get(), all.data(), all.size(), 0);
    all.resize(count > 0 ? static_cast<size_t>(count) : 0);
    return all;
  }

  std::vector<Fd> network;
  std::atomic<int> reads{0};
  std::atomic<int> writeError{0};
  uint64_t offloads = 0;
  uint16_t active = 0;
  bool carrier = false;

 private:
  std::vector<Fd> device_;
};

inline std::string frameTo(const MacAddress& to, size_t size, char fill = 'x',
                           const std::string& type = "\x08\x00") {
  std::string frame(to.begin(), to.end());
  frame += std::string("\x02\x00\x00\x00\x00\x09", 6) + type.substr(0, 1) +
           (type.size() > 1 ? type.substr(1) : std::string(1, '\0'));
  frame.resize(size, fill);
  return frame;
}

/// The guest's driver: rings for each pair and the control queue.
class NetGuest {
 public:
  static constexpr uint64_t kFeatures = FakeHost::kDefaultFeatures | virtio::net::kFeatureMergeableBuffers |
                                        virtio::net::kFeatureControlQueue |
                                        virtio::net::kFeatureControlReceive;

  explicit NetGuest(uint64_t features = kFeatures, uint16_t pairs = 1, virtio::net::NetOptions options = {},
                    uint16_t queueSize = 64)
      : ram(64 << 20) {
    auto fake = std::make_unique<FakeTap>(pairs);
    tap = fake.get();
    use(std::move(fake), features, options, queueSize);
  }
  NetGuest(std::unique_ptr<virtio::net::Backend> backend, uint64_t features) : ram(64 << 20) {
    use(std::move(backend), features, {}, 64);
  }
  ~NetGuest() {
    if (host) {
      host->reset(*device);
    }
  }

  DriverRing& rx(uint16_t pair = 0) { return *rings[2 * pair]; }
  DriverRing& tx(uint16_t pair = 0) { return *rings[2 * pair + 1]; }
  DriverRing& control() { return *rings.back(); }
  uint16_t controlIndex() const { return static_cast<uint16_t>(rings.size() - 1); }
  void notify(uint16_t queue) { host->notify(*device, queue); }

  /// Queues `count` receive buffers of `size` bytes; on the I/O thread, so that the device sees whole steps.
  void addBuffers(size_t count, uint32_t size, uint16_t pair = 0) {
    host->run([&] {
      for (size_t i = 0; i < count; i++) {
        const uint64_t address = ram.alloc(size);
        buffers[pair][rx(pair).add({{address, size, true}})] = address;
      }
      device->notify(static_cast<uint16_t>(2 * pair));
    });
  }
  /// The next frame that the device has delivered, as a driver puts it together; empty: none. Header in
  /// `header`.
  std::string takeFrame(uint16_t pair = 0) {
    std::string all;
    host->run([&] {
      auto used = rx(pair).takeUsed();
      if (!used) {
        return;
      }
      all = ram.read(buffers[pair].at(used->head), used->length);
      std::memcpy(&header, all.data(), sizeof header);
      for (uint16_t i = 1; i < header.buffers; i++) {
        used = rx(pair).takeUsed();
        all += ram.read(buffers[pair].at(used.value().head), used.value().length);
      }
    });
    return all.empty() ? all : all.substr(sizeof(Header));
  }
  std::string waitFrame(uint16_t pair = 0) {
    host->waitUntil([&] { return rx(pair).hasUsed(); });
    return takeFrame(pair);
  }
  /// Sends header and frame in one buffer each; true when the device has returned them.
  void transmit(const Header& with, const std::string& frame, uint16_t pair = 0) {
    host->run([&] {
      tx(pair).add({{ram.place(&with, sizeof with), sizeof with, false},
                    {ram.place(frame.data(), frame.size()), static_cast<uint32_t>(frame.size()), false}});
      device->notify(static_cast<uint16_t>(2 * pair + 1));
    });
  }
  /// The acknowledgement of a command of the control queue; -1: none was written.
  int command(const std::string& bytes) {
    int status = -1;
    host->run([&] {
      const uint64_t at = ram.alloc(1);
      ram.memory.write(at, uint8_t{0x77});
      control().add({{ram.place(bytes.data(), bytes.size()), static_cast<uint32_t>(bytes.size()), false},
                     {at, 1, true}});
      device->notify(controlIndex());
      if (const auto used = control().takeUsed(); used && used->length == 1) {
        status = ram.memory.read<uint8_t>(at).value();
      }
    });
    return status;
  }

  GuestRam ram;
  std::vector<std::unique_ptr<DriverRing>> rings;
  FakeTap* tap = nullptr;
  std::unique_ptr<virtio::net::NetDevice> device;
  std::unique_ptr<FakeHost> host;
  std::array<std::map<uint16_t, uint64_t>, 8> buffers;
  Header header;
  MacAddress mac = kGuestMac;

 private:
  void use(std::unique_ptr<virtio::net::Backend> backend, uint64_t features, virtio::net::NetOptions options,
           uint16_t queueSize) {
    std::vector<DriverRing*> all;
    for (int i = 0; i < 2 * backend->pairs() + 1; i++) {
      rings.push_back(std::make_unique<DriverRing>(ram, queueSize));
      all.push_back(rings.back().get());
    }
    options.mac = kGuestMac;
    device = std::make_unique<virtio::net::NetDevice>(std::move(backend), options);
    host = std::make_unique<FakeHost>(ram, all, features);
    host->activate(*device);
  }
};

}  // namespace tsvmm::test
