#include <napi.h>

#include <memory>

#include "addon/device_handle.h"
#include "addon/script_function.h"
#include "virtio/balloon/balloon.h"

namespace tsvmm::addon {

/// Options: {target, onChange}; onChange hears that actual() has changed or that takeStatistics() has some.
/// Returns {device, setTarget(pages), target(), actual(), requestStatistics(), takeStatistics()}.
Napi::Value createVirtioBalloon(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  const Napi::Value onChange = options.Get("onChange");
  if (!onChange.IsFunction()) {
    throw Napi::TypeError::New(env, "onChange: expected a function");
  }
  const auto balloon = std::make_shared<virtio::Balloon>(
      coalescedNotifier(env, onChange.As<Napi::Function>(), "tsvmm balloon"),
      options.Get("target").As<Napi::Number>().Uint32Value());

  auto result = Napi::Object::New(env);
  result.Set("device", wrapDevice(env, balloon));
  result.Set("setTarget", Napi::Function::New(env, [balloon](const Napi::CallbackInfo& call) {
               balloon->setTarget(call[0].As<Napi::Number>().Uint32Value());
             }));
  result.Set("target", Napi::Function::New(env, [balloon](const Napi::CallbackInfo& call) -> Napi::Value {
               return Napi::Number::New(call.Env(), balloon->target());
             }));
  result.Set("actual", Napi::Function::New(env, [balloon](const Napi::CallbackInfo& call) -> Napi::Value {
               return Napi::Number::New(call.Env(), balloon->actual());
             }));
  result.Set("requestStatistics", Napi::Function::New(env, [balloon](const Napi::CallbackInfo&) {
               balloon->requestStatistics();
             }));
  result.Set("takeStatistics",
             Napi::Function::New(env, [balloon](const Napi::CallbackInfo& call) -> Napi::Value {
               const auto bytes = balloon->takeStatistics();
               if (!bytes) {
                 return call.Env().Undefined();
               }
               return Napi::Buffer<uint8_t>::Copy(call.Env(), bytes->data(), bytes->size());
             }));
  return result;
}

}  // namespace tsvmm::addon
