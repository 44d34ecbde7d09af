#include <napi.h>

#include <exception>
#include <memory>
#include <utility>

#include "addon/device_handle.h"
#include "virtio/blk/blk.h"
#include "virtio/blk/disk.h"

namespace tsvmm::addon {
namespace {

/// A device and what it was opened with, for its next disk.
struct BlkHandle {
  std::shared_ptr<virtio::Blk> device;
  virtio::DiskOpenOptions open;
  virtio::DiskFile file;  ///< the newest, by descriptors of its own
};

virtio::DiskEngine engineOf(const std::string& name) {
  return name == "uring"     ? virtio::DiskEngine::kUring
         : name == "threads" ? virtio::DiskEngine::kThreads
                             : virtio::DiskEngine::kAuto;
}

/// Puts `file` in place and calls `done` (with nothing, or with an Error) on the JavaScript thread.
void replace(Napi::Env env, const std::shared_ptr<BlkHandle>& handle, virtio::DiskFile file,
             const Napi::Function& done) {
  handle->file = file.again();
  const uint64_t sectors = file.sectors();
  auto function = Napi::ThreadSafeFunction::New(env, done, "tsvmm-blk-replace", 0, 1);
  handle->device->replace(
      virtio::makeFileDisk(std::move(file)), sectors,
      [function](bool replaced, std::unique_ptr<virtio::Disk> unused) mutable {
        // Closed on the JavaScript thread: the I/O thread must not wait for it.
        auto* disk = unused.release();
        const auto call = [replaced, disk](Napi::Env callEnv, Napi::Function callback) {
          delete disk;
          if (replaced) {
            callback.Call({});
          } else {
            callback.Call({Napi::Error::New(callEnv, "the disk has been closed").Value()});
          }
        };
        if (function.BlockingCall(call) != napi_ok) {
          delete disk;
        }
        function.Release();
      });
}

template <typename F>
void translate(Napi::Env env, F&& function) {
  try {
    function();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

void addMethods(Napi::Object& result, const std::shared_ptr<BlkHandle>& handle) {
  const Napi::Env env = result.Env();
  const auto method = [&](const char* name, auto function) {
    result.Set(name, Napi::Function::New(env, [function](const Napi::CallbackInfo& call) {
                 translate(call.Env(), [&] { function(call); });
               }));
  };
  const auto mustBeOpen = [](const BlkHandle& open) {
    if (!open.file.fd) {
      throw std::runtime_error("disk " + open.file.path + ": has been closed");
    }
  };
  method("replace", [handle, mustBeOpen](const Napi::CallbackInfo& call) {
    mustBeOpen(*handle);
    const std::string path = call[0].ToString().Utf8Value();
    replace(
        call.Env(), handle,
        virtio::isOpenAs(handle->file, path) ? handle->file.again() : virtio::openDisk(path, handle->open),
        call[1].As<Napi::Function>());
  });
  method("refresh", [handle, mustBeOpen](const Napi::CallbackInfo& call) {
    mustBeOpen(*handle);
    replace(call.Env(), handle, handle->file.again(), call[0].As<Napi::Function>());
  });
  method("close", [handle](const Napi::CallbackInfo&) {
    if (!handle->device->close()) {
      throw std::runtime_error("the disk is in use by a machine that has not ended");
    }
    handle->file.fd.reset();
    handle->file.directFd.reset();
  });
  result.Set("currentSectors",
             Napi::Function::New(env, [handle](const Napi::CallbackInfo& call) -> Napi::Value {
               return Napi::Number::New(call.Env(), static_cast<double>(handle->device->sectors()));
             }));
}

}  // namespace

/// Options: {path, readOnly, direct, engine: 'auto' | 'uring' | 'threads', id, queues, maxDiscardSectors,
/// maxDiscardSegments, maxWriteZeroesSectors, maxWriteZeroesSegments, bytesPerSecond, bytesBurst,
/// operationsPerSecond, operationsBurst}. Returns {device, sectors, blockSize, blockDevice, locked,
/// replace(path, done), refresh(done), currentSectors(), close()}. All throw an Error that names the path.
Napi::Value createVirtioBlk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  const auto number = [&](const char* name) { return options.Get(name).As<Napi::Number>().Uint32Value(); };
  const auto rate = [&](const char* name) {
    return static_cast<uint64_t>(options.Get(name).As<Napi::Number>().Int64Value());
  };
  auto handle = std::make_shared<BlkHandle>();
  handle->open.readOnly = options.Get("readOnly").ToBoolean();
  handle->open.direct = options.Get("direct").ToBoolean();
  handle->open.engine = engineOf(options.Get("engine").ToString().Utf8Value());
  virtio::DiskFile file;
  translate(env, [&] {
    file = virtio::openDisk(options.Get("path").ToString().Utf8Value(), handle->open);
    handle->file = file.again();
  });
  auto result = Napi::Object::New(env);
  result.Set("sectors", Napi::Number::New(env, static_cast<double>(file.sectors())));
  result.Set("blockSize", Napi::Number::New(env, file.blockSize));
  result.Set("blockDevice", Napi::Boolean::New(env, file.blockDevice));
  result.Set("locked", Napi::Boolean::New(env, file.locked));

  virtio::BlkOptions blk;
  blk.sectors = file.sectors();
  blk.readOnly = file.readOnly;
  blk.id = options.Get("id").ToString().Utf8Value();
  blk.queues = static_cast<uint16_t>(number("queues"));
  blk.maxDiscardSectors = number("maxDiscardSectors");
  blk.maxDiscardSegments = number("maxDiscardSegments");
  blk.maxWriteZeroesSectors = number("maxWriteZeroesSectors");
  blk.maxWriteZeroesSegments = number("maxWriteZeroesSegments");
  blk.limits = {rate("bytesPerSecond"), rate("bytesBurst"), rate("operationsPerSecond"),
                rate("operationsBurst")};
  handle->device = std::make_shared<virtio::Blk>(virtio::makeFileDisk(std::move(file)), std::move(blk));
  result.Set("device", wrapDevice(env, handle->device));
  addMethods(result, handle);
  return result;
}

}  // namespace tsvmm::addon
