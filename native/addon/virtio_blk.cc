#include <napi.h>

#include <exception>
#include <memory>
#include <utility>

#include "addon/device_handle.h"
#include "virtio/blk/blk.h"
#include "virtio/blk/disk.h"

namespace tsvmm::addon {

/// Options: {path, readOnly, id, maxDiscardSectors, maxDiscardSegments, maxWriteZeroesSectors,
/// maxWriteZeroesSegments}. Returns {device, sectors, blockSize, blockDevice, locked, close()}. Throws an
/// Error that names the path.
Napi::Value createVirtioBlk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  const auto number = [&](const char* name) { return options.Get(name).As<Napi::Number>().Uint32Value(); };
  virtio::DiskFile file;
  try {
    file = virtio::openDisk(options.Get("path").ToString().Utf8Value(), options.Get("readOnly").ToBoolean());
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
  auto result = Napi::Object::New(env);
  result.Set("sectors", Napi::Number::New(env, static_cast<double>(file.sectors())));
  result.Set("blockSize", Napi::Number::New(env, file.blockSize));
  result.Set("blockDevice", Napi::Boolean::New(env, file.blockDevice));
  result.Set("locked", Napi::Boolean::New(env, file.locked));

  virtio::BlkOptions blk;
  blk.sectors = file.sectors();
  blk.readOnly = file.readOnly;
  blk.id = options.Get("id").ToString().Utf8Value();
  blk.maxDiscardSectors = number("maxDiscardSectors");
  blk.maxDiscardSegments = number("maxDiscardSegments");
  blk.maxWriteZeroesSectors = number("maxWriteZeroesSectors");
  blk.maxWriteZeroesSegments = number("maxWriteZeroesSegments");
  const auto device = std::make_shared<virtio::Blk>(virtio::makeFileDisk(std::move(file)), std::move(blk));
  result.Set("device", wrapDevice(env, device));
  result.Set("close", Napi::Function::New(env, [device](const Napi::CallbackInfo& call) {
               if (!device->close()) {
                 throw Napi::Error::New(call.Env(), "the disk is in use by a machine that has not ended");
               }
             }));
  return result;
}

}  // namespace tsvmm::addon
