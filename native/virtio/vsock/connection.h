#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>

#include "virtio/vsock/byte_queue.h"
#include "virtio/vsock/endpoint.h"
#include "virtio/vsock/packet.h"

namespace tsvmm::virtio::vsock {

/// How a connection ended, for whoever asked for it.
struct Ended {
  uint64_t lost = 0;   ///< bytes from the guest that the host's end did not take
  bool reset = false;  ///< cut off by either side rather than ended by both
};

/// One stream between the guest and a host endpoint: its state and its credit, both ways
/// (virtio 1.2, 5.10.6.3). Counts are modulo 2^32, as on the wire.
struct Connection : std::enable_shared_from_this<Connection> {
  enum class State {
    kRequested,    ///< we asked the guest; its answer is awaited
    kOpening,      ///< the guest asked; the host's socket does not accept yet
    kEstablished,  ///< bytes flow
    kClosing,      ///< the host's end is finished; the guest's last word is awaited
    kDraining,     ///< gone for the guest; what it sent is still being delivered
  };
  using Clock = std::chrono::steady_clock;

  /// `allWindows` counts the window for as long as there is the connection.
  Connection(uint32_t guest, uint32_t host, uint32_t receiveWindow,
             std::shared_ptr<size_t> allWindows = std::make_shared<size_t>(0))
      : guestPort(guest), hostPort(host), window(receiveWindow), allWindows_(std::move(allWindows)) {
    *allWindows_ += window;
  }
  ~Connection() { *allWindows_ -= window; }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const uint32_t guestPort;
  const uint32_t hostPort;
  State state = State::kRequested;
  std::shared_ptr<Endpoint> endpoint;
  std::function<void(int error)> onConnected;
  std::function<void(const Ended&)> onEnded;
  Ended ended;
  /// When patience ends in a state that waits for somebody.
  Clock::time_point deadline = Clock::time_point::max();

  // From the guest.
  const uint32_t window;    ///< our buf_alloc: `pending` never exceeds it
  ByteQueue pending;        ///< received, not yet taken by the endpoint
  uint32_t received = 0;    ///< bytes that the guest has sent
  uint32_t forwarded = 0;   ///< our fwd_cnt: of these, how many have left us
  uint32_t told = 0;        ///< the fwd_cnt that the guest knows of
  uint32_t guestFlags = 0;  ///< kNoSend, kNoReceive as the guest said
  bool outputBroken = false;
  bool outputEnded = false;

  // To the guest.
  uint32_t sent = 0;
  uint32_t guestWindow = 0;     ///< its buf_alloc
  uint32_t guestForwarded = 0;  ///< its fwd_cnt
  bool creditAsked = false;
  bool inputEnded = false;
  uint32_t ourFlags = 0;
  /// Control packets to send, a bit an Operation: each kind at most once, however often it was wanted.
  uint32_t operations = 0;

  /// Its place in the list of connections that have something to send.
  bool queued = false;
  std::list<Connection*>::iterator place;

  uint64_t key() const { return uint64_t{hostPort} << 32 | guestPort; }
  bool wants(Operation operation) const { return (operations & (1u << operation)) != 0; }
  void want(Operation operation) { operations |= 1u << operation; }
  void unwant(Operation operation) { operations &= ~(1u << operation); }

  /// How many bytes the guest takes now.
  uint32_t credit() const;
  /// Takes what a packet says of the guest's buffer; false if it claims to have forwarded what was never
  /// sent.
  bool updateCredit(const Header& header);
  /// Asks for a credit update to the guest when it is worth one.
  void considerCreditUpdate();
  /// Counts bytes as gone.
  void forward(uint32_t bytes);
  /// Hands pending bytes to the endpoint as far as it takes them.
  void flush();
  /// Takes the payload of a packet whose length was found to fit: straight to the endpoint where that is
  /// possible.
  void accept(std::span<const iovec> payload, uint32_t length);
  /// Nobody receives what the guest sends any more: what is pending is lost.
  void breakOutput();
  /// Passes on the guest's end-of-file when everything before it has gone.
  void considerEndOfOutput();
  bool outputDone() const;
  bool inputDone() const;
  /// Whether reading the endpoint makes sense but for credit.
  bool hasInput() const;
  bool wantsToSend();

 private:
  std::shared_ptr<size_t> allWindows_;
};

}  // namespace tsvmm::virtio::vsock
