#include "addon/device_handle.h"

namespace tsvmm::addon {
namespace {
constexpr napi_type_tag kDeviceTag = {0x7f1a4c5be2d94a30, 0x9c3e6d18b0a75f42};
using Holder = std::shared_ptr<virtio::Device>;
}  // namespace

Napi::Value wrapDevice(Napi::Env env, std::shared_ptr<virtio::Device> device) {
  auto external = Napi::External<Holder>::New(env, new Holder(std::move(device)),
                                              [](Napi::Env, Holder* held) { delete held; });
  external.TypeTag(&kDeviceTag);
  return external;
}

std::shared_ptr<virtio::Device> unwrapDevice(const Napi::Value& value) {
  if (value.IsObject() || value.IsExternal()) {
    Napi::Value inner = value;
    if (!value.IsExternal()) {
      inner = value.As<Napi::Object>().Get("device");
    }
    if (inner.IsExternal()) {
      auto external = inner.As<Napi::External<Holder>>();
      if (external.CheckTypeTag(&kDeviceTag)) {
        return *external.Data();
      }
    }
  }
  throw Napi::TypeError::New(value.Env(), "not a native virtio device");
}

}  // namespace tsvmm::addon
