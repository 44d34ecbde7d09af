#include "system/netlink.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>

#include "io/fd.h"

namespace tsvmm::system {
namespace {

using Answers = std::vector<std::vector<uint8_t>>;

// The kernel's dumps come in messages of at most 32 KiB, and a single answer may be longer only where a
// request says so. (More than this would be fresh pages for each request.)
constexpr size_t kReceive = size_t{32} << 10;
constexpr int kDumpTries = 5;

bool whole(const std::vector<uint8_t>& bytes, size_t offset, nlmsghdr& header) {
  if (bytes.size() - offset < sizeof header) {
    return false;
  }
  std::memcpy(&header, bytes.data() + offset, sizeof header);
  return header.nlmsg_len >= sizeof header && header.nlmsg_len <= bytes.size() - offset;
}

int receive(int socket, uint32_t sequence, Answers& answers) {
  bool interrupted = false;
  for (;;) {
    std::vector<uint8_t> bytes(kReceive);
    sockaddr_nl sender{};
    socklen_t length = sizeof sender;
    const ssize_t count = recvfrom(socket, bytes.data(), bytes.size(), MSG_TRUNC,
                                   reinterpret_cast<sockaddr*>(&sender), &length);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return errno == EAGAIN ? -ETIMEDOUT : -errno;
    }
    if (sender.nl_pid != 0) {
      continue;  // of another process
    }
    if (static_cast<size_t>(count) > bytes.size()) {
      return -EMSGSIZE;
    }
    bytes.resize(static_cast<size_t>(count));
    nlmsghdr header{};
    for (size_t offset = 0; offset < bytes.size() && whole(bytes, offset, header);
         offset += NLMSG_ALIGN(header.nlmsg_len)) {
      if (header.nlmsg_seq != sequence) {
        continue;
      }
      interrupted |= (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (header.nlmsg_type == NLMSG_ERROR || header.nlmsg_type == NLMSG_DONE) {
        int error = 0;
        if (header.nlmsg_len >= sizeof header + sizeof error) {
          std::memcpy(&error, bytes.data() + offset + sizeof header, sizeof error);
        }
        return error < 0 ? error : interrupted ? -EINTR : 0;
      }
      const auto* message = bytes.data() + offset;
      answers.emplace_back(message, message + header.nlmsg_len);
    }
  }
}

}  // namespace

int netlinkRequest(int protocol, std::vector<uint8_t> request, Answers& answers) {
  nlmsghdr header{};
  if (request.size() < sizeof header) {
    return -EINVAL;
  }
  std::memcpy(&header, request.data(), sizeof header);
  header.nlmsg_len = static_cast<uint32_t>(request.size());
  const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!socket) {
    return -errno;
  }
  const timeval limit{10, 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  // Without it a refused request comes back with its error, and may be longer than what is received.
  const int on = 1;
  setsockopt(socket.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
  header.nlmsg_pid = 0;
  for (uint32_t attempt = 1;; attempt++) {
    header.nlmsg_seq = attempt;
    std::memcpy(request.data(), &header, sizeof header);
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    ssize_t sent;
    do {
      sent = sendto(socket.get(), request.data(), request.size(), 0,
                    reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
      return -errno;
    }
    answers.clear();
    const int result = receive(socket.get(), attempt, answers);
    if (result != -EINTR || attempt >= kDumpTries) {
      return result;
    }
  }
}

}  // namespace tsvmm::system
