#pragma once

#include <napi.h>

#include <memory>

#include "addon/script_gate.h"
#include "devices/bus.h"

namespace tsvmm::addon {

/// A device on a bus whose registers are JavaScript functions: `read(offset, size) -> number | bigint` and
/// `write(offset, size, value)`. A read makes the vCPU wait for the answer; a write goes its way. If a
/// function throws, the read answers all ones, and the machine's listener hears of it.
class ScriptBusDevice : public BusDevice {
 public:
  ScriptBusDevice(std::shared_ptr<ScriptGate> gate, Napi::Function read, Napi::Function write,
                  Napi::Function failed);
  void read(uint64_t offset, std::span<uint8_t> data) override;
  void write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  struct Functions {
    Napi::FunctionReference read;
    Napi::FunctionReference write;
    Napi::FunctionReference failed;
  };
  std::shared_ptr<ScriptGate> gate_;
  std::shared_ptr<Functions> functions_;
};

/// Exports createScriptVirtio(handlers): a virtio device whose queues JavaScript serves. Handlers:
/// `activate({features, queues})`, `notify(queue)`, `reset()`, `configWritten(offset, bytes)`. The object
/// returned has `interrupt()`, `updateConfig(offset, bytes)` and `fail(reason)`.
void initScriptDevices(Napi::Env env, Napi::Object exports);

}  // namespace tsvmm::addon
