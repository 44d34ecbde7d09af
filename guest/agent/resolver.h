#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/fd.h"
#include "loop.h"
#include "streams.h"

namespace tsvmm::agent {

/// A name server on the guest's loopback that asks one on the host: each query, and each TCP connection, is a
/// vsock connection to a port of the host, which speaks DNS as TCP has it (RFC 1035, 4.2.2: each message
/// behind its length).
class Resolver {
 public:
  /// Listens to port 53 of `address`, UDP and TCP; `hostPort` is the vsock port. Throws OperationError.
  Resolver(Loop& loop, const std::string& address, std::uint32_t hostPort, std::uint16_t port = 53);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

 private:
  /// A query that came by UDP.
  struct Query {
    Fd fd;
    sockaddr_storage client{};
    socklen_t clientLength = 0;
    std::string question;
    /// What is still to be sent of it, behind its length.
    std::string unsent;
    std::string answer;
  };
  /// A TCP connection.
  struct Connection {
    Fd client;
    /// Being made; both descriptors are the relays' from then on.
    Fd host;
    std::unique_ptr<Relay> toHost;
    std::unique_ptr<Relay> toClient;
    int running = 0;
  };

  void onDatagram();
  void onQuery(std::uint64_t id);
  void onConnection();
  void onConnected(std::uint64_t id);
  void dropQuery(std::uint64_t id);
  void dropConnection(std::uint64_t id);

  Loop& loop_;
  const std::uint32_t hostPort_;
  Fd datagrams_;
  Fd listener_;
  std::uint64_t nextId_ = 1;
  std::map<std::uint64_t, Query> queries_;
  std::map<std::uint64_t, Connection> connections_;
};

/// What goes back to a client of UDP: the answer, or, where it is longer than that client takes, the question
/// with the flag that it is to ask again by TCP.
std::string datagramOf(std::string_view question, std::string_view answer);

}  // namespace tsvmm::agent
