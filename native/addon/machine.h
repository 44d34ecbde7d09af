#pragma once

#include <napi.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "addon/script_gate.h"
#include "devices/bus.h"
#include "devices/power.h"
#include "devices/serial.h"
#include "io/event_loop.h"
#include "kvm/vcpu.h"
#include "memory/guest_memory.h"
#include "virtio/mmio_transport.h"

namespace tsvmm::addon {

/// The JavaScript class NativeMachine: the moving parts of one machine (vCPU threads, I/O thread, buses,
/// devices), put together by src/machine/builder.ts. Decides nothing: it tells JavaScript why the machine has
/// ended and stops.
class NativeMachine : public Napi::ObjectWrap<NativeMachine> {
 public:
  static void init(Napi::Env env, Napi::Object exports);
  explicit NativeMachine(const Napi::CallbackInfo& info);
  ~NativeMachine() override;

 private:
  Napi::Value addVcpu(const Napi::CallbackInfo& info);
  Napi::Value addSerial(const Napi::CallbackInfo& info);
  Napi::Value addPower(const Napi::CallbackInfo& info);
  Napi::Value addVirtioMmio(const Napi::CallbackInfo& info);
  Napi::Value addScriptDevice(const Napi::CallbackInfo& info);
  Napi::Value addTimelinePort(const Napi::CallbackInfo& info);
  Napi::Value start(const Napi::CallbackInfo& info);
  Napi::Value stop(const Napi::CallbackInfo& info);
  Napi::Value pause(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value metrics(const Napi::CallbackInfo& info);
  Napi::Value timeline(const Napi::CallbackInfo& info);

  // machine_devices.cc: (name, ..., done); `done(error?, value?)` is called later.
  Napi::Value pauseDevice(const Napi::CallbackInfo& info);
  Napi::Value resumeDevice(const Napi::CallbackInfo& info);
  Napi::Value saveDevice(const Napi::CallbackInfo& info);
  Napi::Value restoreDevice(const Napi::CallbackInfo& info);
  Napi::Value removeDevice(const Napi::CallbackInfo& info);
  using Answer = std::function<void(const std::string& error, const tsvmm::Value& value)>;
  using Transport = virtio::MmioTransport;
  Napi::Value onDevice(const Napi::CallbackInfo& info,
                       std::function<void(Transport& transport, const Answer& answer)> work);
  /// On the loop: suspends every device, then calls `done`.
  void pauseDevices(std::function<void()> done);
  /// Runs `function` on the I/O thread, or at once where that does not run yet.
  void onLoop(EventLoop::Function function);

  /// Keeps a function until settle() calls it, both on JavaScript's thread. Other threads know it by its
  /// number: only that thread may let go of it.
  uint32_t keep(const Napi::Value& function);
  void settle(uint32_t number, const std::vector<napi_value>& arguments);

  /// From any thread; the first reason counts. `reason`: power-off, reset, stopped, panic, or exit (then
  /// `exit` tells).
  void end(const char* reason, const VcpuExit& exit = {});
  void tellEnd(Napi::Env env, const std::string& reason, const VcpuExit& exit);
  void power(PowerRequest request);
  void event(ScriptGate::Call call);
  void shutDown();
  static void cleanUp(void* machine);
  void joinPausing();

  int vmFd_ = -1;
  std::shared_ptr<GuestMemory> memory_;
  std::shared_ptr<ScriptGate> gate_;
  Napi::FunctionReference listener_;
  EventLoop loop_;
  Bus ports_;
  Bus addresses_;
  std::shared_ptr<Serial> serial_;
  std::vector<std::shared_ptr<virtio::MmioTransport>> transports_;
  std::vector<std::unique_ptr<VcpuThread>> vcpus_;
  std::thread pausing_;
  std::map<uint32_t, Napi::FunctionReference> kept_;
  uint32_t lastKept_ = 0;
  std::mutex marksMutex_;
  std::vector<std::pair<uint8_t, uint64_t>> marks_;
  std::atomic<bool> ended_{false};
  std::atomic<bool> panicked_{false};
  bool started_ = false;
  bool closed_ = false;
};

}  // namespace tsvmm::addon
