#pragma once

#include <napi.h>

#include <memory>

#include "virtio/device.h"

namespace tsvmm::addon {

/// Every native virtio device reaches JavaScript as an object with a `device` property that holds this
/// external value (and with the methods that its own glue adds). The machine takes the device out of it when
/// it is put on the bus.
Napi::Value wrapDevice(Napi::Env env, std::shared_ptr<virtio::Device> device);
/// Throws a Napi::TypeError if `value` is not what wrapDevice() made.
std::shared_ptr<virtio::Device> unwrapDevice(const Napi::Value& value);

// One factory a device, in virtio_NAME.cc; each is exported to JavaScript under the name given here.
Napi::Value createVirtioBalloon(const Napi::CallbackInfo& info);
Napi::Value createVirtioBlk(const Napi::CallbackInfo& info);
Napi::Value createVirtioConsole(const Napi::CallbackInfo& info);
Napi::Value createVirtioFs(const Napi::CallbackInfo& info);
Napi::Value createVirtioNet(const Napi::CallbackInfo& info);
Napi::Value createVirtioRng(const Napi::CallbackInfo& info);
Napi::Value createVirtioVsock(const Napi::CallbackInfo& info);

}  // namespace tsvmm::addon
