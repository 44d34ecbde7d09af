#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "support/fake_host.h"
#include "support/ring.h"
#include "virtio/vsock/socket_endpoint.h"
#include "virtio/vsock/vsock.h"

/// A guest's driver for the socket device, and what a test needs at the host's end.
namespace tsvmm::test {

using virtio::vsock::Header;
using virtio::vsock::Vsock;
namespace vs = virtio::vsock;

struct Packet {
  Header header;
  std::string payload;
};

/// How the next packets are malformed.
struct Malformed {
  std::optional<uint32_t> length{};
  std::optional<uint16_t> type{};
  std::optional<uint64_t> sourceCid{};
  std::optional<uint64_t> destinationCid{};
};

class VsockGuest {
 public:
  static constexpr uint32_t kBufferSize = 4096 + sizeof(Header);

  explicit VsockGuest(Vsock::Options options = {}, uint64_t features = FakeHost::kDefaultFeatures,
                      bool activate = true)
      : cid(options.cid),
        rx(std::make_unique<DriverRing>(ram, 64)),
        tx(std::make_unique<DriverRing>(ram, 64)),
        event(std::make_unique<DriverRing>(ram, 8)),
        device(std::make_shared<Vsock>(options)),
        host(ram, {rx.get(), tx.get(), event.get()}, features) {
    txHeader_ = ram.alloc(sizeof(Header));
    txPayload_ = ram.alloc(kTxPayload);
    if (activate) {
      host.activate(*device);
    }
  }
  ~VsockGuest() { host.reset(*device); }

  /// Runs on the I/O thread.
  template <typename F>
  void run(F&& function) {
    host.run(std::forward<F>(function));
  }

  void giveBuffers(int count, uint32_t size = kBufferSize, bool indirect = false) {
    run([&] {
      for (int i = 0; i < count; i++) {
        const uint64_t address = ram.alloc(size);
        giveBuffer(address, size, indirect);
      }
      device->notify(Vsock::kReceiveQueue);
    });
  }

  /// Puts a packet on the transmit queue and notifies; the device has handled it when this returns.
  void send(uint16_t operation, uint32_t guestPort, uint32_t hostPort, const std::string& payload = {},
            uint32_t flags = 0, const Malformed& malformed = {}) {
    run([&] {
      queuePacket(operation, guestPort, hostPort, payload, flags, malformed);
      device->notify(Vsock::kTransmitQueue);
      while (tx->takeUsed()) {
      }
    });
  }

  /// The next packet for the guest; throws when none comes. The buffer is given back unless `keep`.
  Packet receive(bool keep = false) {
    std::optional<Packet> packet;
    const bool came = host.waitUntil([&] {
      packet = poll(keep);
      return packet.has_value();
    });
    if (!came) {
      throw std::runtime_error("no packet for the guest");
    }
    return *packet;
  }
  /// The next packet, if there is one now. On the I/O thread.
  std::optional<Packet> poll(bool keep = false) {
    const auto used = rx->takeUsed();
    if (!used) {
      return std::nullopt;
    }
    const auto [address, size, indirect] = buffers_.at(used->head);
    if (used->length < sizeof(Header)) {
      throw std::runtime_error("a used receive buffer without a header");
    }
    Packet packet;
    const std::string header = ram.read(address, sizeof(Header));
    std::memcpy(&packet.header, header.data(), sizeof(Header));
    packet.payload = ram.read(address + sizeof(Header), used->length - sizeof(Header));
    if (packet.header.length != packet.payload.size()) {
      throw std::runtime_error("the header's length is not the payload's");
    }
    if (!keep) {
      giveBuffer(address, size, indirect);
      device->notify(Vsock::kReceiveQueue);
    }
    return packet;
  }
  /// Whether nothing has come for the guest, once what was posted has run.
  bool quiet() {
    bool none = false;
    run([] {});
    run([&] { none = !rx->hasUsed(); });
    return none;
  }

  /// A guest program's connect(): REQUEST, and RESPONSE expected.
  Packet open(uint32_t guestPort, uint32_t hostPort) {
    send(vs::kRequest, guestPort, hostPort);
    Packet packet = receive();
    if (packet.header.operation != vs::kResponse) {
      throw std::runtime_error("the connection was refused");
    }
    return packet;
  }

  /// Binds one end of a socket pair to the host port; returns the other.
  Fd bindSocket(uint32_t port, std::optional<vs::Ended>* ended = nullptr) {
    auto pair = socketPair();
    run([&] {
      device->bind(port, std::make_shared<vs::SocketEndpoint>(std::move(pair.second)),
                   [ended](const vs::Ended& end) {
                     if (ended != nullptr) {
                       *ended = end;
                     }
                   });
    });
    return std::move(pair.first);
  }

  static std::pair<Fd, Fd> socketPair() {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
      throw std::runtime_error("socketpair");
    }
    return {Fd(fds[0]), Fd(fds[1])};
  }

  const uint64_t cid;
  GuestRam ram{64 << 20};
  std::unique_ptr<DriverRing> rx;
  std::unique_ptr<DriverRing> tx;
  std::unique_ptr<DriverRing> event;
  std::shared_ptr<Vsock> device;
  FakeHost host;
  uint32_t bufferSize = 256 << 10;  ///< what the guest's packets say of its receive buffer
  uint32_t forwarded = 0;           ///< and how much has left it

  /// Queues without notifying. On the I/O thread.
  void queuePacket(uint16_t operation, uint32_t guestPort, uint32_t hostPort, const std::string& payload = {},
                   uint32_t flags = 0, const Malformed& malformed = {}) {
    Header header;
    header.sourceCid = malformed.sourceCid.value_or(cid);
    header.destinationCid = malformed.destinationCid.value_or(2);
    header.sourcePort = guestPort;
    header.destinationPort = hostPort;
    header.length = malformed.length.value_or(static_cast<uint32_t>(payload.size()));
    header.type = malformed.type.value_or(1);
    header.operation = operation;
    header.flags = flags;
    header.bufferSize = bufferSize;
    header.forwardedCount = forwarded;
    ram.write(txHeader_, &header, sizeof header);
    if (payload.empty()) {
      tx->add({{txHeader_, sizeof header, false}});
    } else {
      if (payload.size() > kTxPayload) {
        throw std::runtime_error("payload too long for the test's guest");
      }
      ram.write(txPayload_, payload.data(), payload.size());
      tx->add(
          {{txHeader_, sizeof header, false}, {txPayload_, static_cast<uint32_t>(payload.size()), false}});
    }
  }

  /// Moves to another device, as on another machine: what the first one saved is restored by a second, over
  /// the same memory, with queues that stand where they stood. It is paused.
  void move(Vsock::Options options = {}) {
    run([&] {
      device->pause([] {});
      const Value state = device->save();
      device->reset();
      for (const auto& [index, ring] : {std::pair{Vsock::kReceiveQueue, rx.get()},
                                        {Vsock::kTransmitQueue, tx.get()},
                                        {Vsock::kEventQueue, event.get()}}) {
        virtio::Queue& queue = host.queue(index);
        const virtio::QueueState at = queue.state();
        if (queue.configure(ram.memory, ring->config(), 32768, host.features()) != nullptr) {
          throw std::runtime_error("a queue cannot be configured anew");
        }
        queue.setState(at);
      }
      device = std::make_shared<Vsock>(options);
      device->restore(host, state);
    });
  }

  /// New rings, as after a reset.
  void restart() {
    rx = std::make_unique<DriverRing>(ram, 64);
    tx = std::make_unique<DriverRing>(ram, 64);
    event = std::make_unique<DriverRing>(ram, 8);
    buffers_.clear();
    host.replaceRings({rx.get(), tx.get(), event.get()});
    host.activate(*device);
  }

 private:
  struct GivenBuffer {
    uint64_t address;
    uint32_t size;
    bool indirect;
  };
  static constexpr uint32_t kTxPayload = 1 << 20;

  void giveBuffer(uint64_t address, uint32_t size, bool indirect) {
    const uint16_t head = indirect ? rx->addIndirect({{address, sizeof(Header), true},
                                                      {address + sizeof(Header),
                                                       static_cast<uint32_t>(size - sizeof(Header)), true}})
                                   : rx->add({{address, size, true}});
    buffers_[head] = {address, size, indirect};
  }

  uint64_t txHeader_ = 0;
  uint64_t txPayload_ = 0;
  std::map<uint16_t, GivenBuffer> buffers_;
};

/// The next packet of that operation; those before it are dropped.
inline Packet receiveUntil(VsockGuest& guest, vs::Operation operation) {
  while (true) {
    Packet packet = guest.receive();
    if (packet.header.operation == operation) {
      return packet;
    }
  }
}

/// Reads exactly `length` bytes, or what comes before the end of the input; throws if neither happens within
/// ten seconds.
inline std::string readAll(int fd, size_t length) {
  std::string bytes;
  while (bytes.size() < length) {
    pollfd waiting{fd, POLLIN, 0};
    if (::poll(&waiting, 1, 10'000) != 1) {
      throw std::runtime_error("nothing to read");
    }
    char piece[65536];
    const ssize_t n = ::read(fd, piece, std::min(sizeof piece, length - bytes.size()));
    if (n < 0) {
      throw std::runtime_error(std::string("read: ") + std::strerror(errno));
    }
    if (n == 0) {
      break;
    }
    bytes.append(piece, static_cast<size_t>(n));
  }
  return bytes;
}

/// Waits for the end of the input; true if it comes without a byte before.
inline bool atEnd(int fd) { return readAll(fd, 1).empty(); }

inline void writeAll(int fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0) {
      throw std::runtime_error(std::string("write: ") + std::strerror(errno));
    }
    done += static_cast<size_t>(n);
  }
}

/// Bytes that differ from place to place, to see order and completeness.
inline std::string pattern(size_t length, uint32_t seed = 1) {
  std::string bytes(length, '\0');
  uint32_t state = seed * 2654435761u + 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

}  // namespace tsvmm::test
