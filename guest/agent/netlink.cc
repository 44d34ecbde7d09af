#include "netlink.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"

namespace tsvmm::agent {

namespace {

/// The kernel sends at most 32 KiB of a list at once (netlink_dump).
constexpr std::size_t kDatagram = 64 << 10;

}  // namespace

void NetlinkMessage::append(const void* data, std::size_t length) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  bytes_.insert(bytes_.end(), bytes, bytes + length);
  bytes_.resize(NLMSG_ALIGN(bytes_.size()));
}

std::size_t NetlinkMessage::open(std::uint16_t type) {
  const std::size_t start = bytes_.size();
  const rtattr header{sizeof(rtattr), type};
  append(&header, sizeof header);
  return start;
}

NetlinkMessage& NetlinkMessage::attribute(std::uint16_t type, std::string_view bytes) {
  const rtattr header{static_cast<std::uint16_t>(sizeof(rtattr) + bytes.size()), type};
  append(&header, sizeof header);
  append(bytes.data(), bytes.size());
  return *this;
}

NetlinkMessage& NetlinkMessage::number(std::uint16_t type, std::uint32_t value) {
  return attribute(type, {reinterpret_cast<const char*>(&value), sizeof value});
}

NetlinkMessage& NetlinkMessage::nested(std::uint16_t type, const std::function<void()>& write) {
  const std::size_t start = open(type);
  write();
  const rtattr header{static_cast<std::uint16_t>(bytes_.size() - start), type};
  std::memcpy(bytes_.data() + start, &header, sizeof header);
  return *this;
}

Netlink::Netlink() : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) {
  if (!fd_) {
    throw systemError("cannot open a netlink socket", "");
  }
}

void Netlink::send(NetlinkMessage& message, std::uint16_t flags) {
  std::vector<std::uint8_t>& bytes = message.bytes();
  nlmsghdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.nlmsg_len = static_cast<std::uint32_t>(bytes.size());
  header.nlmsg_flags |= flags;
  header.nlmsg_seq = ++sequence_;
  std::memcpy(bytes.data(), &header, sizeof header);
  if (::send(fd_.get(), bytes.data(), bytes.size(), 0) < 0) {
    throw systemError("cannot send to netlink", "");
  }
}

int Netlink::receive(const std::function<void(std::string_view)>& onEntry) {
  std::vector<char> buffer(kDatagram);
  for (;;) {
    const ssize_t count = recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno;
    }
    std::string_view rest(buffer.data(), static_cast<std::size_t>(count));
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof header);
      if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest.size()) {
        return EBADMSG;
      }
      const std::string_view payload = rest.substr(sizeof header, header.nlmsg_len - sizeof header);
      if (header.nlmsg_seq == sequence_) {
        if (header.nlmsg_type == NLMSG_ERROR || header.nlmsg_type == NLMSG_DONE) {
          std::int32_t status = 0;
          std::memcpy(&status, payload.data(), std::min(payload.size(), sizeof status));
          return status < 0 ? -status : 0;
        }
        onEntry(payload);
      }
      rest.remove_prefix(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
    }
  }
}

int Netlink::request(NetlinkMessage& message) {
  send(message, NLM_F_ACK);
  return receive([](std::string_view) {});
}

void Netlink::dump(NetlinkMessage& message, const std::function<void(std::string_view)>& onEntry) {
  send(message, NLM_F_DUMP);
  if (const int error = receive(onEntry); error != 0) {
    throw systemError("cannot list the network interfaces", "", error);
  }
}

std::string_view findAttribute(std::string_view attributes, std::uint16_t type) {
  while (attributes.size() >= sizeof(rtattr)) {
    rtattr header;
    std::memcpy(&header, attributes.data(), sizeof header);
    if (header.rta_len < sizeof header || header.rta_len > attributes.size()) {
      break;
    }
    if (header.rta_type == type) {
      return attributes.substr(sizeof header, header.rta_len - sizeof header);
    }
    attributes.remove_prefix(std::min<std::size_t>(RTA_ALIGN(header.rta_len), attributes.size()));
  }
  return {};
}

}  // namespace tsvmm::agent
