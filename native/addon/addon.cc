#include <napi.h>

#include "addon/control.h"
#include "addon/device_handle.h"
#include "addon/kvm.h"
#include "addon/machine.h"
#include "addon/memory.h"
#include "addon/network.h"
#include "addon/open_gate.h"
#include "addon/script_device.h"
#include "addon/system.h"

namespace tsvmm::addon {
namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  initKvm(env, exports);
  initMemory(env, exports);
  NativeMachine::init(env, exports);
  initScriptDevices(env, exports);
  initSystem(env, exports);
  initNetwork(env, exports);
  initControl(env, exports);
  initOpenGate(env, exports);
  exports.Set("createVirtioBalloon", Napi::Function::New(env, createVirtioBalloon));
  exports.Set("createVirtioBlk", Napi::Function::New(env, createVirtioBlk));
  exports.Set("createVirtioConsole", Napi::Function::New(env, createVirtioConsole));
  exports.Set("createVirtioFs", Napi::Function::New(env, createVirtioFs));
  exports.Set("createVirtioNet", Napi::Function::New(env, createVirtioNet));
  exports.Set("createVirtioRng", Napi::Function::New(env, createVirtioRng));
  exports.Set("createVirtioVsock", Napi::Function::New(env, createVirtioVsock));
  return exports;
}

}  // namespace
}  // namespace tsvmm::addon

static Napi::Object tsvmmInit(Napi::Env env, Napi::Object exports) {
  return tsvmm::addon::init(env, exports);
}
NODE_API_MODULE(tsvmm, tsvmmInit)
