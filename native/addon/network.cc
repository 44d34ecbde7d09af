#include "addon/network.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "io/fd.h"

namespace tsvmm::addon {
namespace {

using Bytes = std::vector<uint8_t>;

/// What the kernel sends at once of a dump is at most this.
constexpr size_t kDatagram = 64 << 10;
constexpr uint32_t kSequence = 1;

Napi::Value error(Napi::Env env, int number) { return Napi::Number::New(env, -number); }

/// Takes the messages of one datagram apart. Returns 1 when it ends the answer, 0 when more follows, or
/// -errno.
int take(const uint8_t* data, size_t length, std::vector<Bytes>& answers) {
  while (length >= sizeof(nlmsghdr)) {
    nlmsghdr header;
    std::memcpy(&header, data, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > length) {
      return -EBADMSG;
    }
    if (header.nlmsg_type == NLMSG_ERROR || header.nlmsg_type == NLMSG_DONE) {
      int32_t status = 0;
      if (header.nlmsg_len >= sizeof header + sizeof status) {
        std::memcpy(&status, data + sizeof header, sizeof status);
      }
      return status < 0 ? status : 1;
    }
    if (header.nlmsg_seq == kSequence && header.nlmsg_type >= NLMSG_MIN_TYPE) {
      answers.emplace_back(data, data + header.nlmsg_len);
    }
    const size_t step = std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), length);
    data += step;
    length -= step;
  }
  return 0;
}

int exchange(int protocol, Bytes request, std::vector<Bytes>& answers) {
  const Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd) {
    return -errno;
  }
  nlmsghdr header;
  std::memcpy(&header, request.data(), sizeof header);
  header.nlmsg_len = static_cast<uint32_t>(request.size());
  header.nlmsg_flags |= NLM_F_REQUEST;
  if ((header.nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) {
    header.nlmsg_flags |= NLM_F_ACK;
  }
  header.nlmsg_seq = kSequence;
  header.nlmsg_pid = 0;
  std::memcpy(request.data(), &header, sizeof header);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const auto* address = reinterpret_cast<const sockaddr*>(&kernel);
  if (sendto(fd.get(), request.data(), request.size(), 0, address, sizeof kernel) < 0) {
    return -errno;
  }
  Bytes buffer(kDatagram);
  for (;;) {
    sockaddr_nl sender{};
    socklen_t length = sizeof sender;
    const ssize_t count = recvfrom(fd.get(), buffer.data(), buffer.size(), MSG_TRUNC,
                                   reinterpret_cast<sockaddr*>(&sender), &length);
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      return -errno;
    }
    if (static_cast<size_t>(count) > buffer.size()) {
      return -EMSGSIZE;
    }
    if (sender.nl_pid != 0) {
      continue;
    }
    const int status = take(buffer.data(), static_cast<size_t>(count), answers);
    if (status != 0) {
      return status < 0 ? status : 0;
    }
  }
}

// netlink(protocol, request): the messages of the answer, or -errno.
Napi::Value netlink(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsNumber() || !info[1].IsTypedArray() ||
      info[1].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw Napi::TypeError::New(env, "netlink(protocol: number, request: Uint8Array)");
  }
  const auto request = info[1].As<Napi::Uint8Array>();
  if (request.ByteLength() < sizeof(nlmsghdr)) {
    throw Napi::RangeError::New(env, "netlink: the request is shorter than its header");
  }
  std::vector<Bytes> answers;
  const int status = exchange(info[0].As<Napi::Number>().Int32Value(),
                              Bytes(request.Data(), request.Data() + request.ByteLength()), answers);
  if (status < 0) {
    return Napi::Number::New(env, status);
  }
  auto result = Napi::Array::New(env, answers.size());
  for (uint32_t i = 0; i < answers.size(); i++) {
    auto message = Napi::Uint8Array::New(env, answers[i].size());
    std::copy(answers[i].begin(), answers[i].end(), message.Data());
    result.Set(i, message);
  }
  return result;
}

// openTap(name): {fd, index} of a new TAP device in the calling thread's network namespace, or -errno.
Napi::Value openTap(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string name = info[0].IsString() ? info[0].ToString().Utf8Value() : "";
  if (name.empty() || name.size() >= IFNAMSIZ) {
    throw Napi::TypeError::New(env, "openTap(name: a string of 1 to 15 bytes)");
  }
  Fd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    return error(env, errno);
  }
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
  if (ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    return error(env, errno);
  }
  const unsigned index = if_nametoindex(name.c_str());
  if (index == 0) {
    return error(env, errno);
  }
  auto result = Napi::Object::New(env);
  result.Set("index", index);
  result.Set("fd", fd.release());
  return result;
}

// setns(fd, type): moves the calling thread into a namespace.
Napi::Value enterNamespace(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber() || !info[1].IsNumber()) {
    throw Napi::TypeError::New(info.Env(), "setns(fd: number, type: number)");
  }
  const int status =
      setns(info[0].As<Napi::Number>().Int32Value(), info[1].As<Napi::Number>().Int32Value()) == 0 ? 0
                                                                                                   : errno;
  return error(info.Env(), status);
}

// unshare(flags): gives the calling thread namespaces of its own.
Napi::Value leaveNamespace(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber()) {
    throw Napi::TypeError::New(info.Env(), "unshare(flags: number)");
  }
  const int status = unshare(info[0].As<Napi::Number>().Int32Value()) == 0 ? 0 : errno;
  return error(info.Env(), status);
}

// lockFile(fd): waits for the exclusive flock(2) of an open file.
Napi::Value lockFile(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber()) {
    throw Napi::TypeError::New(info.Env(), "lockFile(fd: number)");
  }
  int status = 0;
  do {
    status = flock(info[0].As<Napi::Number>().Int32Value(), LOCK_EX) == 0 ? 0 : errno;
  } while (status == EINTR);
  return error(info.Env(), status);
}

}  // namespace

void initNetwork(Napi::Env env, Napi::Object exports) {
  exports["netlink"] = Napi::Function::New(env, netlink, "netlink");
  exports["openTap"] = Napi::Function::New(env, openTap, "openTap");
  exports["setns"] = Napi::Function::New(env, enterNamespace, "setns");
  exports["unshare"] = Napi::Function::New(env, leaveNamespace, "unshare");
  exports["lockFile"] = Napi::Function::New(env, lockFile, "lockFile");
}

}  // namespace tsvmm::addon
