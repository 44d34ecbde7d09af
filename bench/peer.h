// What the guest program says to the peer on the host: a request at a time on a connection.
#pragma once

#include <cstdint>

namespace bench {

enum class Ask : uint32_t {
  kSink = 1,    // take `amount` bytes, then answer with one
  kSource = 2,  // send `amount` bytes
  kEcho = 3,    // `amount` times: take a byte, send a byte
};

struct Request {
  Ask ask;
  uint32_t reserved;
  uint64_t amount;
};

inline constexpr unsigned kPort = 1024;  // TCP and vsock

}  // namespace bench
