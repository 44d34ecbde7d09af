#include "virtio/vsock/host_socket.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>

#include "virtio/vsock/socket_endpoint.h"

namespace tsvmm::virtio::vsock {
namespace {

constexpr size_t kLongestLine = 32;
constexpr std::string_view kVerb = "CONNECT ";

[[noreturn]] void fail(int error, const std::string& path, const char* what) {
  throw std::system_error(error, std::generic_category(), "vsock: " + path + ": " + what);
}

/// Removes a socket file whose process is gone. Throws if it is anything else.
void removeStale(const std::string& path) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    fail(errno, path, "lstat");
  }
  if (!S_ISSOCK(status.st_mode)) {
    fail(EEXIST, path, "there is a file that is not a socket");
  }
  Fd probe;
  const int error = connectUnix(path, probe);
  if (error == 0 || error == EAGAIN) {
    fail(EADDRINUSE, path, "another process listens to this socket");
  }
  if (error != ECONNREFUSED) {
    fail(error, path, "connect to the socket that is there already");
  }
  if (::unlink(path.c_str()) != 0) {
    fail(errno, path, "unlink of a socket that nobody listens to");
  }
}

}  // namespace

HostSocket::HostSocket(Options options) : options_(std::move(options)) {
  const std::string& path = options_.path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    fail(ENAMETOOLONG, path, "a Unix socket's path has 1 to 107 bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_) {
    fail(errno, path, "socket");
  }
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(listener_.get(), name, sizeof address) != 0) {
    if (errno != EADDRINUSE) {
      fail(errno, path, "bind");
    }
    removeStale(path);
    if (::bind(listener_.get(), name, sizeof address) != 0) {
      fail(errno, path, "bind");
    }
  }
  struct stat status;
  if (lstat(path.c_str(), &status) == 0) {
    device_ = status.st_dev;
    inode_ = status.st_ino;
  }
  if (::listen(listener_.get(), SOMAXCONN) != 0) {
    const int error = errno;
    unlink();
    fail(error, path, "listen");
  }
}

HostSocket::~HostSocket() {
  loopChanged(nullptr);
  unlink();
}

void HostSocket::unlink() {
  struct stat status;
  if (inode_ != 0 && lstat(options_.path.c_str(), &status) == 0 && status.st_dev == device_ &&
      status.st_ino == inode_) {
    ::unlink(options_.path.c_str());
  }
}

void HostSocket::attach(const std::shared_ptr<Vsock>& vsock) {
  vsock_ = vsock;
  // The device owns us until detach(), so that we end on its thread.
  watcher_ = vsock->watchLoop([self = shared_from_this()](EventLoop* loop) { self->loopChanged(loop); });
}

void HostSocket::detach() {
  if (const auto vsock = vsock_.lock()) {
    vsock->unwatchLoop(watcher_);
  }
  loopChanged(nullptr);
  listener_.reset();
  unlink();
}

void HostSocket::loopChanged(EventLoop* loop) {
  if (loop_ != nullptr) {
    loop_->remove(listener_.get());
    for (const auto& [fd, client] : clients_) {
      loop_->remove(fd);
    }
    clients_.clear();
    loop_->cancel(timer_);
    loop_->cancel(retry_);
    timer_ = retry_ = 0;
  }
  loop_ = loop;
  if (loop_ != nullptr && listener_) {
    loop_->add(listener_.get(), EPOLLIN | EPOLLET, [this](uint32_t) { accept(); });
  }
}

void HostSocket::accept() {
  // As many as there may be at most; more come with the timer.
  for (size_t i = 0; i < options_.maxWaiting; i++) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EAGAIN) {
        return;
      }
      if (errno != EINTR && errno != ECONNABORTED) {
        break;  // out of descriptors or memory
      }
      continue;
    }
    if (clients_.size() >= options_.maxWaiting) {
      continue;
    }
    const int fd = socket.get();
    clients_.emplace(fd,
                     Client{std::move(socket), {}, std::chrono::steady_clock::now() + options_.lineTimeout});
    if (loop_->add(fd, EPOLLIN | EPOLLRDHUP, [this, fd](uint32_t) { read(fd); }) != 0) {
      clients_.erase(fd);
      continue;
    }
    armTimer();
  }
  retryLater();
}

void HostSocket::retryLater() {
  if (retry_ == 0) {
    retry_ = loop_->after(std::chrono::milliseconds(50), [this] {
      retry_ = 0;
      accept();
    });
  }
}

void HostSocket::hangUp(int fd) {
  loop_->remove(fd);
  clients_.erase(fd);
}

void HostSocket::read(int fd) {
  const auto found = clients_.find(fd);
  if (found == clients_.end()) {
    return;
  }
  Client& client = found->second;
  // Nothing beyond the newline may be taken: it is the guest's.
  char bytes[kLongestLine];
  const size_t room = kLongestLine - client.line.size();
  const ssize_t n = recv(fd, bytes, room, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (n <= 0) {
    hangUp(fd);
    return;
  }
  const char* newline = static_cast<const char*>(std::memchr(bytes, '\n', static_cast<size_t>(n)));
  const size_t length =
      newline == nullptr ? static_cast<size_t>(n) : static_cast<size_t>(newline - bytes + 1);
  if (recv(fd, bytes, length, MSG_DONTWAIT) != static_cast<ssize_t>(length)) {
    hangUp(fd);
    return;
  }
  client.line.append(bytes, length);
  if (newline == nullptr) {
    if (client.line.size() >= kLongestLine) {
      hangUp(fd);
    }
    return;
  }
  uint32_t port = 0;
  const std::string_view line(client.line.data(), client.line.size() - 1);
  if (!line.starts_with(kVerb)) {
    hangUp(fd);
    return;
  }
  const char* first = line.data() + kVerb.size();
  const char* last = line.data() + line.size();
  const auto [end, error] = std::from_chars(first, last, port);
  if (error != std::errc() || end != last) {
    hangUp(fd);
    return;
  }
  Fd socket = std::move(client.socket);
  hangUp(fd);
  request(std::move(socket), port);
}

void HostSocket::request(Fd socket, uint32_t port) {
  const auto vsock = vsock_.lock();
  if (vsock == nullptr) {
    return;
  }
  const auto endpoint = std::make_shared<SocketEndpoint>(std::move(socket));
  vsock->connect(
      port, endpoint,
      [endpoint](int error, uint32_t hostPort) {
        if (error == 0) {
          std::string line = "OK " + std::to_string(hostPort) + "\n";
          const iovec part{line.data(), line.size()};
          // The first bytes in an empty socket: taken, unless the client has gone, which reading will tell.
          sendNow(endpoint->fd(), {&part, 1});
        }
      },
      nullptr);
}

void HostSocket::armTimer() {
  if (timer_ == 0) {
    timer_ = loop_->after(options_.lineTimeout / 2, [this] {
      timer_ = 0;
      checkDeadlines();
    });
  }
}

void HostSocket::checkDeadlines() {
  const auto now = std::chrono::steady_clock::now();
  std::vector<int> late;
  for (const auto& [fd, client] : clients_) {
    if (client.deadline <= now) {
      late.push_back(fd);
    }
  }
  for (const int fd : late) {
    hangUp(fd);
  }
  if (!clients_.empty()) {
    armTimer();
  }
}

}  // namespace tsvmm::virtio::vsock
