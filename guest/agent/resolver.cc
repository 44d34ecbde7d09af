#include "resolver.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "error.h"

namespace tsvmm::agent {

namespace {

/// At once; who asks more waits for its own time limit.
constexpr std::size_t kMaxOpen = 128;
constexpr std::size_t kMaxQuestion = 4096;
constexpr std::size_t kHeader = 12;
/// What a client takes that does not say (RFC 1035, 4.2.1), and one that says anything (EDNS).
constexpr std::size_t kPlainLimit = 512;
constexpr std::size_t kEdnsLimit = 1232;

sockaddr_in addressOf(const std::string& text, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, text.c_str(), &address.sin_addr);
  return address;
}

Fd bound(int type, const sockaddr_in& address, const std::string& text) {
  Fd fd(socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      (type == SOCK_STREAM && listen(fd.get(), SOMAXCONN) != 0)) {
    throw systemError("network: cannot serve names at", text);
  }
  return fd;
}

/// The length of the first question's name, type and class; 0 where it is not whole.
std::size_t questionLength(std::string_view message) {
  std::size_t at = kHeader;
  while (at < message.size() && message[at] != 0) {
    at += 1 + static_cast<std::uint8_t>(message[at]);
  }
  return at + 5 <= message.size() ? at + 5 - kHeader : 0;
}

}  // namespace

std::string datagramOf(std::string_view question, std::string_view answer) {
  const bool edns = question.size() >= kHeader && (question[10] != 0 || question[11] != 0);
  if (answer.size() <= (edns ? kEdnsLimit : kPlainLimit)) {
    return std::string(answer);
  }
  std::string header(answer.substr(0, kHeader));
  header[2] = static_cast<char>(header[2] | 0x02);
  const std::size_t length = questionLength(question);
  // One question, and nothing else.
  std::fill(header.begin() + 4, header.end(), '\0');
  header[5] = length > 0 ? 1 : 0;
  return header + std::string(length > 0 ? question.substr(kHeader, length) : "");
}

Resolver::Resolver(Loop& loop, const std::string& address, std::uint32_t hostPort, std::uint16_t port)
    : loop_(loop),
      hostPort_(hostPort),
      datagrams_(bound(SOCK_DGRAM, addressOf(address, port), address)),
      listener_(bound(SOCK_STREAM, addressOf(address, port), address)) {
  loop_.add(datagrams_.get(), EPOLLIN, [this](std::uint32_t) { onDatagram(); });
  loop_.add(listener_.get(), EPOLLIN, [this](std::uint32_t) { onConnection(); });
}

Resolver::~Resolver() {
  loop_.remove(datagrams_.get());
  loop_.remove(listener_.get());
  for (const auto& [id, query] : queries_) {
    loop_.remove(query.fd.get());
  }
  for (const auto& [id, connection] : connections_) {
    if (connection.host) {
      loop_.remove(connection.host.get());
    }
  }
}

void Resolver::onDatagram() {
  char buffer[kMaxQuestion];
  Query query;
  query.clientLength = sizeof query.client;
  const ssize_t count = recvfrom(datagrams_.get(), buffer, sizeof buffer, MSG_TRUNC,
                                 reinterpret_cast<sockaddr*>(&query.client), &query.clientLength);
  if (count < static_cast<ssize_t>(kHeader) || count > static_cast<ssize_t>(sizeof buffer) ||
      queries_.size() >= kMaxOpen) {
    return;
  }
  query.question.assign(buffer, static_cast<std::size_t>(count));
  query.unsent = {static_cast<char>(count >> 8), static_cast<char>(count & 0xff)};
  query.unsent += query.question;
  try {
    query.fd = startConnect(hostPort_);
    const std::uint64_t id = nextId_++;
    loop_.add(query.fd.get(), EPOLLOUT, [this, id](std::uint32_t) { onQuery(id); });
    queries_.emplace(id, std::move(query));
  } catch (const OperationError&) {
    // As a datagram that is lost: the client asks again.
  }
}

void Resolver::onQuery(std::uint64_t id) {
  Query& query = queries_.at(id);
  if (!query.unsent.empty()) {
    const ssize_t count = send(query.fd.get(), query.unsent.data(), query.unsent.size(), MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN) {
      return dropQuery(id);
    }
    query.unsent.erase(0, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (query.unsent.empty()) {
      loop_.modify(query.fd.get(), EPOLLIN);
    }
    return;
  }
  char buffer[kMaxQuestion];
  const ssize_t count = recv(query.fd.get(), buffer, sizeof buffer, 0);
  if (count < 0 && errno == EAGAIN) {
    return;
  }
  if (count <= 0) {
    return dropQuery(id);
  }
  // A message has at most 65535 bytes, so that this is bounded.
  query.answer.append(buffer, static_cast<std::size_t>(count));
  if (query.answer.size() < 2) {
    return;
  }
  const std::size_t length = (static_cast<std::size_t>(static_cast<std::uint8_t>(query.answer[0])) << 8) |
                             static_cast<std::uint8_t>(query.answer[1]);
  if (query.answer.size() < 2 + length) {
    return;
  }
  if (length >= kHeader) {
    const std::string datagram = datagramOf(query.question, std::string_view(query.answer).substr(2, length));
    sendto(datagrams_.get(), datagram.data(), datagram.size(), 0,
           reinterpret_cast<const sockaddr*>(&query.client), query.clientLength);
  }
  dropQuery(id);
}

void Resolver::dropQuery(std::uint64_t id) {
  loop_.remove(queries_.at(id).fd.get());
  queries_.erase(id);
}

void Resolver::onConnection() {
  Connection connection;
  connection.client = Fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!connection.client || connections_.size() >= kMaxOpen) {
    return;
  }
  try {
    connection.host = startConnect(hostPort_);
    const std::uint64_t id = nextId_++;
    loop_.add(connection.host.get(), EPOLLOUT, [this, id](std::uint32_t) { onConnected(id); });
    connections_.emplace(id, std::move(connection));
  } catch (const OperationError&) {
    // The client sees its connection closed.
  }
}

void Resolver::onConnected(std::uint64_t id) {
  Connection& connection = connections_.at(id);
  loop_.remove(connection.host.get());
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(connection.host.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  Fd client(fcntl(connection.client.get(), F_DUPFD_CLOEXEC, 0));
  Fd host(fcntl(connection.host.get(), F_DUPFD_CLOEXEC, 0));
  if (error != 0 || !client || !host) {
    return dropConnection(id);
  }
  const auto done = [this, id] {
    if (--connections_.at(id).running == 0) {
      loop_.post([this, id] { dropConnection(id); });
    }
  };
  connection.running = 2;
  try {
    connection.toHost = std::make_unique<Relay>(loop_, RelayEnd{std::move(client), EndKind::kSocket},
                                                RelayEnd{std::move(host), EndKind::kSocket}, done);
    connection.toClient =
        std::make_unique<Relay>(loop_, RelayEnd{std::move(connection.host), EndKind::kSocket},
                                RelayEnd{std::move(connection.client), EndKind::kSocket}, done);
  } catch (const OperationError&) {
    loop_.post([this, id] { dropConnection(id); });
  }
}

void Resolver::dropConnection(std::uint64_t id) { connections_.erase(id); }

}  // namespace tsvmm::agent
