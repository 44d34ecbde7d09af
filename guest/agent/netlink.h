#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/fd.h"

namespace tsvmm::agent {

/// A netlink message that is being written: the header, the fixed part of its type, then attributes.
class NetlinkMessage {
 public:
  template <typename Fixed>
  NetlinkMessage(std::uint16_t type, std::uint16_t flags, const Fixed& fixed) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
    append(&header, sizeof header);
    append(&fixed, sizeof fixed);
  }

  NetlinkMessage& attribute(std::uint16_t type, std::string_view bytes);
  NetlinkMessage& number(std::uint16_t type, std::uint32_t value);
  /// An attribute that holds what `write` writes.
  NetlinkMessage& nested(std::uint16_t type, const std::function<void()>& write);

  std::vector<std::uint8_t>& bytes() { return bytes_; }

 private:
  void append(const void* data, std::size_t length);
  std::size_t open(std::uint16_t type);
  void close(std::size_t start);

  std::vector<std::uint8_t> bytes_;
};

/// A NETLINK_ROUTE socket of the process's network namespace.
class Netlink {
 public:
  /// Throws OperationError.
  Netlink();

  /// Sends a request and waits for its acknowledgement. Returns 0 or the errno.
  int request(NetlinkMessage& message);

  /// Asks for a list and hears each entry: its payload behind the header. Throws OperationError.
  void dump(NetlinkMessage& message, const std::function<void(std::string_view)>& onEntry);

 private:
  void send(NetlinkMessage& message, std::uint16_t flags);
  /// Hears entries until the answer ends. Returns 0 or the errno.
  int receive(const std::function<void(std::string_view)>& onEntry);

  Fd fd_;
  std::uint32_t sequence_ = 0;
};

/// The value of an attribute among those that follow a fixed part; empty where it is not there.
std::string_view findAttribute(std::string_view attributes, std::uint16_t type);

}  // namespace tsvmm::agent
