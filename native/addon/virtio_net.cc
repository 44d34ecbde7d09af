#include <fcntl.h>
#include <napi.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "addon/device_handle.h"
#include "virtio/net/net_device.h"
#include "virtio/net/stream.h"
#include "virtio/net/tap.h"

namespace tsvmm::addon {
namespace {

using virtio::net::Tap;

virtio::RateLimits readLimits(const Napi::Object& limits) {
  const auto number = [&](const char* name) {
    return static_cast<uint64_t>(limits.Get(name).As<Napi::Number>().Int64Value());
  };
  return {number("bytesPerSecond"), number("bytesBurst"), number("packetsPerSecond"), number("packetsBurst")};
}

Tap readTap(const Napi::Object& options) {
  if (options.Get("tapFds").IsArray()) {
    const auto fds = options.Get("tapFds").As<Napi::Array>();
    std::vector<int> descriptors;
    for (uint32_t i = 0; i < fds.Length(); i++) {
      descriptors.push_back(fds.Get(i).As<Napi::Number>().Int32Value());
    }
    return virtio::net::adoptTap(descriptors);
  }
  return virtio::net::openTap({options.Get("tap").ToString().Utf8Value(),
                               static_cast<uint16_t>(options.Get("pairs").As<Napi::Number>().Uint32Value()),
                               options.Get("up").ToBoolean()});
}

/// This device's end of the stream. `streamFd` is duplicated; without one a socket pair is made and `peer` is
/// its other end, the caller's.
Fd readStream(const Napi::Object& options, int& peer) {
  if (options.Get("streamFd").IsNumber()) {
    const int descriptor = options.Get("streamFd").As<Napi::Number>().Int32Value();
    int type = 0;
    socklen_t length = sizeof type;
    if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) {
      throw std::runtime_error("descriptor " + std::to_string(descriptor) + ": is no stream socket");
    }
    return Fd(fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  peer = ends[1];
  return Fd(ends[0]);
}

}  // namespace

/// Options: one of {tap, pairs, up}, {tapFds}, {streamFd}, {stream: true}; and {mac, mtu, link, toGuest,
/// fromGuest}, where mtu is 0 for the tap device's own. Returns {device, tap, mtu, peer, setLink(up),
/// close()}. Throws an Error that names the tap device.
Napi::Value createVirtioNet(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  virtio::net::NetOptions net;
  const auto mac = options.Get("mac").As<Napi::Uint8Array>();
  std::copy_n(mac.Data(), std::min(mac.ByteLength(), net.mac.size()), net.mac.begin());
  net.linkUp = options.Get("link").ToBoolean();
  net.toGuest = readLimits(options.Get("toGuest").As<Napi::Object>());
  net.fromGuest = readLimits(options.Get("fromGuest").As<Napi::Object>());
  net.mtu = options.Get("mtu").As<Napi::Number>().Uint32Value();

  auto result = Napi::Object::New(env);
  std::unique_ptr<virtio::net::Backend> backend;
  int peer = -1;
  try {
    if (options.Get("tap").IsString() || options.Get("tapFds").IsArray()) {
      Tap tap = readTap(options);
      net.mtu = net.mtu != 0 ? net.mtu : tap.mtu;
      result.Set("tap", tap.name);
      backend = virtio::net::makeTapBackend(std::move(tap));
    } else {
      Fd socket = readStream(options, peer);
      backend = virtio::net::makeStreamBackend(std::move(socket), peer >= 0 ? "passt" : "the stream's peer");
    }
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
  result.Set("mtu", net.mtu);
  result.Set("peer", peer);
  const auto device = std::make_shared<virtio::net::NetDevice>(std::move(backend), net);
  result.Set("device", wrapDevice(env, device));
  result.Set("setLink", Napi::Function::New(env, [device](const Napi::CallbackInfo& call) {
               device->setLink(call[0].ToBoolean());
             }));
  result.Set("close", Napi::Function::New(env, [device](const Napi::CallbackInfo& call) {
               if (!device->close()) {
                 throw Napi::Error::New(call.Env(), "the network is in use by a machine that has not ended");
               }
             }));
  return result;
}

}  // namespace tsvmm::addon
