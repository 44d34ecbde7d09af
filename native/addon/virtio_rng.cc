#include <napi.h>

#include <memory>

#include "addon/device_handle.h"
#include "virtio/rng/rng.h"

namespace tsvmm::addon {

Napi::Value createVirtioRng(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
  result.Set("device", wrapDevice(info.Env(), std::make_shared<virtio::Rng>()));
  return result;
}

}  // namespace tsvmm::addon
