#include <napi.h>

#include <memory>
#include <utility>
#include <vector>

#include "addon/byte_streams.h"
#include "addon/device_handle.h"
#include "addon/script_function.h"
#include "virtio/console/console.h"

namespace tsvmm::addon {
namespace {

/// What JavaScript holds of the ports: each function below shares it.
struct Handle {
  std::shared_ptr<virtio::Console> console;
  std::vector<PushSource*> pushed;  ///< the console's; null where JavaScript pushes no input
  std::vector<std::function<void()>> resume;
};

size_t portOf(const Handle& handle, const Napi::CallbackInfo& call) {
  const uint32_t port = call[0].As<Napi::Number>().Uint32Value();
  if (port >= handle.console->ports()) {
    throw Napi::RangeError::New(call.Env(),
                                "port: there are only " + std::to_string(handle.console->ports()));
  }
  return port;
}

}  // namespace

/// Options: {ports: [{name, console, columns, rows, input?, output?}], onChange}; input and output as in
/// byte_streams.h; onChange hears that opens() of a port has changed. Returns {device, resize(port, columns,
/// rows), write(port, bytes), end(port), resumeOutput(port), hangUp(port), opens(port)}.
Napi::Value createVirtioConsole(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto options = info[0].As<Napi::Object>();
  const auto list = options.Get("ports").As<Napi::Array>();
  const auto handle = std::make_shared<Handle>();
  std::vector<virtio::ConsolePortOptions> ports;
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto item = list.Get(i).As<Napi::Object>();
    InputStream input = readInput(item.Get("input"));
    OutputStream output = readOutput(item.Get("output"));
    handle->pushed.push_back(input.pushed);
    handle->resume.push_back(std::move(output.resume));
    virtio::ConsolePortOptions port;
    port.name = item.Get("name").ToString().Utf8Value();
    port.console = item.Get("console").ToBoolean().Value();
    port.columns = static_cast<uint16_t>(item.Get("columns").As<Napi::Number>().Uint32Value());
    port.rows = static_cast<uint16_t>(item.Get("rows").As<Napi::Number>().Uint32Value());
    port.source = std::move(input.source);
    port.sink = std::move(output.sink);
    ports.push_back(std::move(port));
  }
  handle->console = std::make_shared<virtio::Console>(
      std::move(ports),
      coalescedNotifier(env, options.Get("onChange").As<Napi::Function>(), "tsvmm console"));

  auto result = Napi::Object::New(env);
  result.Set("device", wrapDevice(env, handle->console));
  const auto add = [&](const char* name, auto function) {
    result.Set(name,
               Napi::Function::New(env, [handle, function](const Napi::CallbackInfo& call) -> Napi::Value {
                 return function(*handle, portOf(*handle, call), call);
               }));
  };
  add("resize", [](Handle& held, size_t port, const Napi::CallbackInfo& call) -> Napi::Value {
    held.console->resize(port, static_cast<uint16_t>(call[1].As<Napi::Number>().Uint32Value()),
                         static_cast<uint16_t>(call[2].As<Napi::Number>().Uint32Value()));
    return call.Env().Undefined();
  });
  add("write", [](Handle& held, size_t port, const Napi::CallbackInfo& call) -> Napi::Value {
    if (held.pushed[port] == nullptr) {
      throw Napi::TypeError::New(call.Env(), "the port has no input that JavaScript pushes");
    }
    const auto bytes = call[1].As<Napi::Uint8Array>();
    const size_t taken = held.pushed[port]->push(bytes.Data(), bytes.ByteLength());
    return Napi::Number::New(call.Env(), static_cast<double>(taken));
  });
  add("end", [](Handle& held, size_t port, const Napi::CallbackInfo& call) -> Napi::Value {
    if (held.pushed[port] != nullptr) {
      held.pushed[port]->end();
    }
    return call.Env().Undefined();
  });
  add("resumeOutput", [](Handle& held, size_t port, const Napi::CallbackInfo& call) -> Napi::Value {
    held.resume[port]();
    return call.Env().Undefined();
  });
  add("hangUp", [](Handle& held, size_t port, const Napi::CallbackInfo& call) -> Napi::Value {
    if (held.pushed[port] != nullptr) {
      held.pushed[port]->end();  // what has been pushed still reaches the guest
    }
    held.console->hangUp(port);
    return call.Env().Undefined();
  });
  add("opens", [](Handle& held, size_t port, const Napi::CallbackInfo& call) -> Napi::Value {
    return Napi::Number::New(call.Env(), held.console->opens(port));
  });
  return result;
}

}  // namespace tsvmm::addon
