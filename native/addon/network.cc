#include "addon/network.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "io/fd.h"

namespace tsvmm::addon {
namespace {

Napi::Value error(Napi::Env env, int number) { return Napi::Number::New(env, -number); }

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

// lockFile(fd, locked): waits for the exclusive flock(2) of an open file, or gives it back.
Napi::Value lockFile(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber() || !info[1].IsBoolean()) {
    throw Napi::TypeError::New(info.Env(), "lockFile(fd: number, locked: boolean)");
  }
  const int operation = info[1].ToBoolean() ? LOCK_EX : LOCK_UN;
  int status = 0;
  do {
    status = flock(info[0].As<Napi::Number>().Int32Value(), operation) == 0 ? 0 : errno;
  } while (status == EINTR);
  return error(info.Env(), status);
}

}  // namespace

void initNetwork(Napi::Env env, Napi::Object exports) {
  exports["openTap"] = Napi::Function::New(env, openTap, "openTap");
  exports["lockFile"] = Napi::Function::New(env, lockFile, "lockFile");
}

}  // namespace tsvmm::addon
