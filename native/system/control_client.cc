#include "system/control_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>

#include "system/unix_socket.h"

namespace tsvmm::system {
namespace {

using Clock = std::chrono::steady_clock;

int sendLine(int socket, std::string_view line) {
  std::string message;
  message.reserve(line.size() + 1);
  message.append(line);
  message.push_back('\n');
  return sendWithFds(socket, message, {});
}

/// Waits for input until `deadline` (without limit where `limited` is false). 0 or -errno.
int waitForInput(int socket, bool limited, Clock::time_point deadline) {
  for (;;) {
    int timeout = -1;
    if (limited) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      timeout = left > 0 ? static_cast<int>(left) : 0;
    }
    pollfd entry{socket, POLLIN, 0};
    const int result = poll(&entry, 1, timeout);
    if (result > 0) {
      return 0;
    }
    if (result == 0) {
      return -ETIMEDOUT;
    }
    if (errno != EINTR) {
      return -errno;
    }
  }
}

}  // namespace

int controlRequest(const std::string& path, std::string_view line, unsigned timeoutMs, std::string& answer) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeoutMs);
  Fd socket;
  int error = connectUnix(path, timeoutMs, socket);
  if (error == 0) {
    error = sendLine(socket.get(), line);
  }
  if (error == -EAGAIN) {
    return -ETIMEDOUT;
  }
  // Where the other side has answered and closed before all was sent, the answer tells why.
  if (error < 0 && error != -EPIPE && error != -ECONNRESET) {
    return error;
  }
  if (!socket) {
    return error;
  }
  answer.clear();
  char bytes[16384];
  for (;;) {
    if (const int waited = waitForInput(socket.get(), timeoutMs != 0, deadline); waited < 0) {
      return waited;
    }
    const ssize_t count = recv(socket.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    }
    if (count <= 0) {
      return count == 0 ? -ECONNRESET : -errno;
    }
    const std::string_view part(bytes, static_cast<size_t>(count));
    const size_t end = part.find('\n');
    answer.append(part.substr(0, end));
    if (end != std::string_view::npos) {
      return 0;
    }
    if (answer.size() > kMostAnswer) {
      return -EMSGSIZE;
    }
  }
}

int ControlStream::open(const std::string& path, std::string_view line) {
  const int error = connectUnix(path, 0, socket_);
  return error < 0 ? error : sendLine(socket_.get(), line);
}

int ControlStream::receive() {
  read_.erase(0, taken_);
  searched_ -= taken_;
  taken_ = 0;
  char bytes[16384];
  ssize_t count;
  do {
    count = recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) {
    return count == 0 ? -ECONNRESET : -errno;
  }
  if (read_.size() + static_cast<size_t>(count) > kMostAnswer) {
    return -EMSGSIZE;
  }
  read_.append(bytes, static_cast<size_t>(count));
  return 0;
}

bool ControlStream::next(std::string& line) {
  const size_t end = read_.find('\n', searched_);
  if (end == std::string::npos) {
    searched_ = read_.size();
    return false;
  }
  line.assign(read_, taken_, end - taken_);
  taken_ = searched_ = end + 1;
  return true;
}

}  // namespace tsvmm::system
