#include <napi.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon/device_handle.h"
#include "virtio/fs/fs_device.h"

namespace tsvmm::addon {
namespace {

virtio::fs::Cache cacheOf(const std::string& name) {
  return name == "none"     ? virtio::fs::Cache::kNone
         : name == "always" ? virtio::fs::Cache::kAlways
                            : virtio::fs::Cache::kAuto;
}

/// [{guest, host, count}], or undefined: every id is itself.
virtio::fs::IdMap idMapOf(const Napi::Value& value) {
  if (!value.IsArray()) {
    return {};
  }
  const auto list = value.As<Napi::Array>();
  std::vector<virtio::fs::IdRange> ranges;
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto item = list.Get(i).As<Napi::Object>();
    const auto number = [&](const char* name) { return item.Get(name).ToNumber().Uint32Value(); };
    ranges.push_back({number("guest"), number("host"), number("count")});
  }
  return virtio::fs::IdMap(std::move(ranges));
}

}  // namespace

/// Options: {directory, readOnly, or exports: {name, path, readOnly}[], cache: 'none' | 'auto' | 'always',
/// writeback, hostLocks, posixAcl, uids, gids: {guest, host, count}[] or undefined}. Returns {device}. Throws
/// an Error that names the folder.
Napi::Value createVirtioFs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  const auto flag = [&](const char* name) { return options.Get(name).ToBoolean().Value(); };
  virtio::fs::FuseOptions fuse;
  if (options.Get("exports").IsArray()) {
    const auto exports = options.Get("exports").As<Napi::Array>();
    for (uint32_t i = 0; i < exports.Length(); i++) {
      const auto item = exports.Get(i).As<Napi::Object>();
      fuse.exports.push_back({item.Get("name").ToString().Utf8Value(),
                              item.Get("path").ToString().Utf8Value(),
                              item.Get("readOnly").ToBoolean().Value()});
    }
  } else {
    fuse.directory = options.Get("directory").ToString().Utf8Value();
    fuse.readOnly = flag("readOnly");
  }
  fuse.cache = cacheOf(options.Get("cache").ToString().Utf8Value());
  fuse.writeback = flag("writeback");
  fuse.hostLocks = flag("hostLocks");
  fuse.posixAcl = flag("posixAcl");
  auto result = Napi::Object::New(env);
  try {
    fuse.uids = idMapOf(options.Get("uids"));
    fuse.gids = idMapOf(options.Get("gids"));
    result.Set("device", wrapDevice(env, std::make_shared<virtio::fs::FsDevice>(std::move(fuse))));
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
  return result;
}

}  // namespace tsvmm::addon
