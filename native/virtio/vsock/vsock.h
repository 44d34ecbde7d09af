#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "virtio/device.h"
#include "virtio/vsock/connection.h"
#include "virtio/vsock/endpoint.h"
#include "virtio/vsock/packet.h"
#include "virtio/vsock/receive_ring.h"

namespace tsvmm::virtio::vsock {

/// The virtio socket device (virtio 1.2, 5.10): stream connections between the guest and host endpoints.
/// Everything is done on the I/O thread; whoever is elsewhere hands functions over with submit(). What was
/// bound or is listened to outlives the guest's driver: it is there before the driver comes and after a
/// reset.
class Vsock final : public Device, public std::enable_shared_from_this<Vsock> {
 public:
  struct Options {
    uint64_t cid = 3;              ///< the guest's
    size_t maxConnections = 4096;  ///< a connection more is refused
    std::chrono::milliseconds connectTimeout{10'000};
    std::chrono::milliseconds linger{10'000};         ///< how long the guest may take to acknowledge an end
    std::chrono::milliseconds backlogTimeout{2'000};  ///< how long to try a Unix socket whose backlog is full
  };
  /// Makes the host's end of a connection from the guest's port; nullptr refuses it.
  using Accept = std::function<std::shared_ptr<Endpoint>(uint32_t guestPort)>;
  using ConnectedHandler = std::function<void(int error, uint32_t hostPort)>;
  using EndedHandler = std::function<void(const Ended&)>;

  static constexpr uint16_t kReceiveQueue = 0;
  static constexpr uint16_t kTransmitQueue = 1;
  static constexpr uint16_t kEventQueue = 2;

  explicit Vsock(Options options) : options_(options) {}
  ~Vsock() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override;
  Value save() override;
  void restore(Host& host, const Value& state) override;

  /// From any thread: runs `function` on the I/O thread, or once there is one.
  void submit(std::function<void()> function);
  /// From any thread: a change of what is bound or listened to (the functions below up to unlisten). It holds
  /// for every connection that the guest asks for from now on, even where the I/O thread is looking at the
  /// guest's packets meanwhile.
  void changePorts(std::function<void()> change);
  /// From any thread, once the machine has ended or when nothing more is wanted of it: gives up everything
  /// that waits for a connection, and what it holds. Connections that have been made stay.
  void retire();
  /// From any thread.
  size_t connections() const { return count_.load(std::memory_order_relaxed); }

  // On the I/O thread only:

  /// The next guest connection to host port `port` goes to `endpoint`: once. Several wait in their order.
  void bind(uint32_t port, std::shared_ptr<Endpoint> endpoint, EndedHandler ended);
  /// Takes back what bind() was given unless a connection has come. True if it was taken back.
  bool unbind(uint32_t port, const Endpoint* endpoint);
  /// Guest connections to `port` go to what `accept` makes. Replaces an earlier listener.
  void listen(uint32_t port, Accept accept);
  /// Guest connections to `port` go to the Unix socket at `path`.
  void listenUnix(uint32_t port, std::string path);
  /// Guest connections to a port for which there is nothing else go to the Unix socket `${prefix}_${port}`.
  void listenAll(std::optional<std::string> prefix) { prefix_ = std::move(prefix); }
  /// Ends listen() or listenUnix().
  void unlisten(uint32_t port);
  /// Asks the guest for a connection to its port. `connected` hears 0 or an errno (ECONNREFUSED: nobody
  /// listens there, ETIMEDOUT, ENOBUFS: too many connections, ECONNRESET: the guest was reset); after 0,
  /// `ended` hears of the end.
  void connect(uint32_t guestPort, std::shared_ptr<Endpoint> endpoint, ConnectedHandler connected,
               EndedHandler ended);
  /// Ends every connection and tells the guest that all of them are gone (for a machine that was restored).
  void resetTransport();

  /// For those who want to watch something while the driver is there: called with the loop on activation (at
  /// once, if that has been) and with nullptr on reset. Returns a key for unwatch().
  uint64_t watchLoop(std::function<void(EventLoop*)> changed);
  void unwatchLoop(uint64_t key) { loopWatchers_.erase(key); }

 private:
  using Clock = Connection::Clock;
  struct Bind {
    std::shared_ptr<Endpoint> endpoint;
    EndedHandler ended;
  };
  struct Asked {
    uint32_t guestPort;
    std::shared_ptr<Endpoint> endpoint;
    ConnectedHandler connected;
    EndedHandler ended;
  };
  /// When to try a Unix socket again whose backlog was full.
  static constexpr std::chrono::milliseconds kOpenRetry{20};
  /// An RST to send for a connection that is none (any more).
  struct OwedReset {
    uint32_t guestPort;
    uint32_t hostPort;
    uint16_t type;
  };

  // From the guest (vsock_receive.cc).
  void serveTransmit();
  void receive(Chain& chain);
  void receiveRequest(const Header& header);
  void applyPortChanges();
  void receiveFor(Connection& connection, const Header& header, Chain& chain);
  const std::string* unixPathFor(uint32_t hostPort, std::string& buffer) const;
  void tryOpen(Connection& connection);

  // To the guest (vsock_send.cc).
  void schedule(Connection& connection);
  void pump();
  void serve(Connection& connection);
  void sendControl(Connection& connection, Operation operation);
  bool sendData(Connection& connection);
  Header headerFor(const Connection& connection, Operation operation) const;
  void oweReset(uint32_t guestPort, uint32_t hostPort, uint16_t type);
  void sendEvent();
  /// A line for the log, up to a number of them: guests could cause any.
  void complain(uint32_t hostPort, const std::string& what);
  /// A queue whose rules the driver broke ends the device. True if it is so.
  bool failed(uint16_t queue);

  // Connections (vsock.cc).
  Connection* find(uint32_t guestPort, uint32_t hostPort);
  std::shared_ptr<Connection> make(uint32_t guestPort, uint32_t hostPort);
  uint32_t windowForNext() const;
  void startConnect(Asked asked);
  void establish(Connection& connection);
  void endpointReady(const std::shared_ptr<Connection>& connection);
  /// Follows up whatever has changed: sends, ends, forgets. The connection may be gone afterwards.
  void progress(Connection& connection);
  /// Forgets the connection as far as the guest is concerned; what is pending is still delivered.
  void drop(Connection& connection, bool tellGuest, bool cut);
  /// The host's end is finished.
  void finish(Connection& connection);
  void forgetListeners();
  void refuseConnect(Connection& connection, int error);
  void dropAll();
  void updateCount() { count_.store(table_.size() + draining_.size(), std::memory_order_relaxed); }
  void wait(Connection& connection, std::chrono::milliseconds patience);
  void armTimer(std::chrono::milliseconds delay);
  void checkDeadlines();

  const Options options_;
  Host* host_ = nullptr;
  ReceiveRing receive_;
  bool pumping_ = false;
  bool pumpPosted_ = false;
  bool transmitPosted_ = false;
  bool eventOwed_ = false;
  bool paused_ = false;
  Clock::time_point pausedAt_;
  Clock::time_point complaintsAnew_;
  int complaints_ = 0;
  uint64_t untold_ = 0;

  std::unordered_map<uint64_t, std::shared_ptr<Connection>> table_;
  std::unordered_set<std::shared_ptr<Connection>> draining_;
  std::list<Connection*> ready_;  ///< have something to send, in turn
  std::deque<OwedReset> owedResets_;
  std::atomic<size_t> count_{0};
  std::shared_ptr<size_t> windows_ = std::make_shared<size_t>(0);  ///< of all connections, in bytes
  uint32_t nextHostPort_ = uint32_t{1} << 30;

  std::unordered_map<uint32_t, std::deque<Bind>> binds_;
  std::unordered_map<uint32_t, Accept> listeners_;
  std::unordered_map<uint32_t, std::string> paths_;
  std::optional<std::string> prefix_;
  std::deque<Asked> asked_;  ///< until there is a driver
  std::unordered_map<uint64_t, std::function<void(EventLoop*)>> loopWatchers_;
  uint64_t nextWatcher_ = 1;

  EventLoop::TimerId timer_ = 0;
  Clock::time_point timerAt_;

  std::mutex portsMutex_;  ///< for the next one
  std::deque<std::function<void()>> portChanges_;

  std::mutex mutex_;  ///< for the two below
  EventLoop* loop_ = nullptr;
  std::vector<std::function<void()>> early_;
};

}  // namespace tsvmm::virtio::vsock
