#include <napi.h>

#include <memory>

#include "addon/device_handle.h"
#include "virtio/rng/rng.h"

namespace tsvmm::addon {

/// Options: {bytesPerSecond, bytesBurst}, 0 where there is no limit. Returns {device}.
Napi::Value createVirtioRng(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  const auto rate = [&](const char* name) {
    return static_cast<uint64_t>(options.Get(name).As<Napi::Number>().Int64Value());
  };
  virtio::RateLimits limits;
  limits.bytesPerSecond = rate("bytesPerSecond");
  limits.bytesBurst = rate("bytesBurst");
  auto result = Napi::Object::New(info.Env());
  result.Set("device", wrapDevice(info.Env(), std::make_shared<virtio::Rng>(limits)));
  return result;
}

}  // namespace tsvmm::addon
