#pragma once

#include <cstdint>
#include <vector>

namespace tsvmm::system {

/// Sends one netlink request (a whole message: header, payload; its length, sequence number, port and
/// NLM_F_ACK are filled in here) in the calling thread's network namespace, and collects all messages of the
/// answer (headers included, the final NLMSG_DONE or acknowledgement left out). Returns 0 or -errno: the
/// kernel's, -EINTR for a dump that changed while it was read five times over, -ETIMEDOUT after 10 s.
int netlinkRequest(int protocol, std::vector<uint8_t> request, std::vector<std::vector<uint8_t>>& answers);

}  // namespace tsvmm::system
