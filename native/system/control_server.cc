#include "system/control_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "system/unix_socket.h"

namespace tsvmm::system {
namespace {

// Identifies the listening socket among the events; ids of connections begin with 1.
constexpr uint32_t kListening = 0;
// Of one connection in one serve(): the others have their turn after it.
constexpr size_t kStep = size_t{64} << 10;
constexpr int kAcceptsAtOnce = 16;

}  // namespace

struct ControlServer::Connection {
  uint32_t id = 0;
  Fd socket;
  std::string input;
  size_t searched = 0;  // of input: no newline before
  std::vector<Fd> fds;
  std::string output;
  size_t sent = 0;  // of output
  uint32_t events = 0;
  bool closing = false;
};

int ControlServer::open(const std::string& path) {
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  reserve_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!epoll_ || !reserve_) {
    return -errno;
  }
  if (const int error = listenUnix(path, socket_); error < 0) {
    return error;
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = kListening;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket_.get(), &event) == 0 ? 0 : -errno;
}

void ControlServer::serve() {
  epoll_event events[32];
  const int count = epoll_wait(epoll_.get(), events, 32, 0);
  for (int i = 0; i < count && epoll_; i++) {
    if (events[i].data.u32 == kListening) {
      accept();
      continue;
    }
    const auto found = connections_.find(events[i].data.u32);
    if (found == connections_.end()) {
      continue;  // closed by what came before it
    }
    const std::shared_ptr<Connection> connection = found->second;
    if ((events[i].events & (EPOLLOUT | EPOLLERR)) != 0 && !flush(*connection)) {
      end(connection);
    } else if (connection->closing) {
      if (connection->output.empty() || (events[i].events & EPOLLHUP) != 0) {
        drop(*connection);
      }
    } else if ((events[i].events & (EPOLLIN | EPOLLHUP)) != 0) {
      receive(connection);
    }
  }
}

void ControlServer::accept() {
  for (int i = 0; i < kAcceptsAtOnce && socket_; i++) {
    Fd socket(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EMFILE || errno == ENFILE)) {
      // Left in the backlog it would keep the loop busy for as long as descriptors are short.
      reserve_.reset();
      const Fd refused(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      reserve_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      continue;
    }
    if (!socket) {
      return;
    }
    if (connections_.size() >= kMostConnections) {
      continue;
    }
    while (nextId_ == kListening || connections_.contains(nextId_)) {
      nextId_++;
    }
    auto connection = std::make_shared<Connection>();
    connection->id = nextId_++;
    connection->socket = std::move(socket);
    epoll_event event{};
    event.events = connection->events = EPOLLIN;
    event.data.u32 = connection->id;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection->socket.get(), &event) != 0) {
      continue;
    }
    connections_.emplace(connection->id, connection);
    listener_.onConnection(connection->id);
  }
}

void ControlServer::receive(const std::shared_ptr<Connection>& connection) {
  char bytes[16384];
  for (size_t step = 0; step < kStep && connection->socket && !connection->closing; step += sizeof bytes) {
    const ssize_t count =
        receiveWithFds(connection->socket.get(), bytes, sizeof bytes, MSG_DONTWAIT, connection->fds);
    if (count == -EAGAIN) {
      return;
    }
    if (count <= 0) {
      end(connection);
      return;
    }
    connection->input.append(bytes, static_cast<size_t>(count));
    deliver(connection);
  }
}

void ControlServer::deliver(const std::shared_ptr<Connection>& connection) {
  size_t taken = 0;
  while (connection->socket && !connection->closing) {
    const size_t end = connection->input.find('\n', connection->searched);
    if (end == std::string::npos) {
      break;
    }
    connection->searched = end + 1;
    std::string line = connection->input.substr(taken, end - taken);
    taken = end + 1;
    if (line.size() > kMostLine) {
      this->end(connection);
      return;
    }
    listener_.onLine(connection->id, std::move(line), std::exchange(connection->fds, {}));
  }
  if (!connection->socket || connection->closing) {
    connection->input = {};
    connection->fds.clear();
    return;
  }
  connection->input.erase(0, taken);
  connection->searched = connection->input.size();
  if (connection->input.size() > kMostLine) {
    end(connection);
  }
}

bool ControlServer::flush(Connection& connection) {
  while (connection.sent < connection.output.size()) {
    const ssize_t count = ::send(connection.socket.get(), connection.output.data() + connection.sent,
                                 connection.output.size() - connection.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      if (errno != EAGAIN) {
        return false;
      }
      break;
    }
    connection.sent += static_cast<size_t>(count);
  }
  if (connection.sent == connection.output.size()) {
    connection.output = {};
    connection.sent = 0;
  }
  watch(connection);
  return true;
}

void ControlServer::watch(Connection& connection) {
  const uint32_t wanted = (connection.closing ? 0U : static_cast<uint32_t>(EPOLLIN)) |
                          (connection.output.empty() ? 0U : static_cast<uint32_t>(EPOLLOUT));
  if (wanted != connection.events) {
    epoll_event event{};
    event.events = connection.events = wanted;
    event.data.u32 = connection.id;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.socket.get(), &event);
  }
}

int ControlServer::send(uint32_t id, std::string_view line) {
  const auto found = connections_.find(id);
  if (found == connections_.end() || found->second->closing) {
    return -ENOENT;
  }
  Connection& connection = *found->second;
  if (connection.output.size() - connection.sent + line.size() > kMostUnread) {
    // serve() finds the end of it, and tells the listener then.
    connection.output = {};
    connection.sent = 0;
    shutdown(connection.socket.get(), SHUT_RDWR);
    return -ENOBUFS;
  }
  connection.output.erase(0, std::exchange(connection.sent, 0));
  connection.output.append(line).push_back('\n');
  if (!flush(connection)) {
    // Its client has gone; what it sent before that is still read.
    connection.output = {};
    connection.sent = 0;
    watch(connection);
  }
  return 0;
}

void ControlServer::close(uint32_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) {
    return;
  }
  const std::shared_ptr<Connection> connection = found->second;
  connection->closing = true;
  if (connection->output.empty()) {
    drop(*connection);
  } else {
    watch(*connection);
  }
}

void ControlServer::stop() {
  for (const auto& [id, connection] : std::exchange(connections_, {})) {
    connection->socket.reset();
    connection->fds.clear();
  }
  socket_.reset();
  reserve_.reset();
  epoll_.reset();
}

void ControlServer::drop(Connection& connection) {
  const uint32_t id = connection.id;
  connection.socket.reset();  // out of epoll too: nobody else has the open file
  connection.fds.clear();
  connections_.erase(id);
}

void ControlServer::end(const std::shared_ptr<Connection>& connection) {
  const bool told = connection->closing;
  drop(*connection);
  if (!told) {
    listener_.onEnd(connection->id);
  }
}

}  // namespace tsvmm::system
