#include <napi.h>

#include <memory>
#include <utility>

#include "addon/byte_streams.h"
#include "addon/device_handle.h"
#include "virtio/console/console.h"

namespace tsvmm::addon {

/// Options: {input?, output?}, see byte_streams.h. Returns {device, resize(columns, rows), write(bytes),
/// end(), resumeOutput()}.
Napi::Value createVirtioConsole(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  InputStream input = readInput(options.Get("input"));
  OutputStream output = readOutput(options.Get("output"));
  PushSource* const pushed = input.pushed;  // the console's, which each function below holds
  const auto console = std::make_shared<virtio::Console>(std::move(input.source), std::move(output.sink));

  auto result = Napi::Object::New(env);
  result.Set("device", wrapDevice(env, console));
  result.Set("resize", Napi::Function::New(env, [console](const Napi::CallbackInfo& call) {
               console->resize(static_cast<uint16_t>(call[0].As<Napi::Number>().Uint32Value()),
                               static_cast<uint16_t>(call[1].As<Napi::Number>().Uint32Value()));
             }));
  result.Set("write",
             Napi::Function::New(env, [console, pushed](const Napi::CallbackInfo& call) -> Napi::Value {
               if (pushed == nullptr) {
                 throw Napi::TypeError::New(call.Env(), "the console has no input that JavaScript pushes");
               }
               const auto bytes = call[0].As<Napi::Uint8Array>();
               return Napi::Number::New(call.Env(),
                                        static_cast<double>(pushed->push(bytes.Data(), bytes.ByteLength())));
             }));
  result.Set("end", Napi::Function::New(env, [console, pushed](const Napi::CallbackInfo&) {
               if (pushed != nullptr) {
                 pushed->end();
               }
             }));
  result.Set(
      "resumeOutput",
      Napi::Function::New(env, [resume = std::move(output.resume)](const Napi::CallbackInfo&) { resume(); }));
  return result;
}

}  // namespace tsvmm::addon
