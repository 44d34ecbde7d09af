#include "addon/machine.h"

#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>

#include <cerrno>

#include "addon/device_handle.h"
#include "addon/memory.h"
#include "addon/script_device.h"

namespace tsvmm::addon {
namespace {

constexpr auto kPanicGrace = std::chrono::seconds(2);

/// What the C++ core throws while a machine is put together becomes a JavaScript error with the same words.
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

uint64_t toU64(const Napi::Value& value) {
  if (!value.IsNumber()) {
    throw Napi::TypeError::New(value.Env(), "expected a number");
  }
  return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
}
int toInt(const Napi::Value& value) { return static_cast<int>(toU64(value)); }

/// A one-byte port by which a guest tells how far its start has come, with the time of the host.
class TimelinePort : public BusDevice {
 public:
  explicit TimelinePort(std::function<void(uint8_t)> mark) : mark_(std::move(mark)) {}
  void read(uint64_t, std::span<uint8_t> data) override { std::fill(data.begin(), data.end(), 0xff); }
  void write(uint64_t, std::span<const uint8_t> data) override { mark_(data[0]); }

 private:
  std::function<void(uint8_t)> mark_;
};

/// The serial port on the port bus.
class SerialPort : public BusDevice {
 public:
  explicit SerialPort(std::shared_ptr<Serial> serial) : serial_(std::move(serial)) {}
  void read(uint64_t offset, std::span<uint8_t> data) override {
    std::fill(data.begin(), data.end(), 0xff);
    data[0] = serial_->read(static_cast<uint8_t>(offset));
  }
  void write(uint64_t offset, std::span<const uint8_t> data) override {
    serial_->write(static_cast<uint8_t>(offset), data[0]);
  }

 private:
  std::shared_ptr<Serial> serial_;
};

virtio::Description readDescription(const Napi::Object& object) {
  virtio::Description description;
  bool lossless;
  description.name = object.Get("name").ToString().Utf8Value();
  description.deviceId = object.Get("deviceId").As<Napi::Number>().Uint32Value();
  description.features = object.Get("features").As<Napi::BigInt>().Uint64Value(&lossless);
  const auto sizes = object.Get("queueSizes").As<Napi::Array>();
  for (uint32_t i = 0; i < sizes.Length(); i++) {
    description.queueSizes.push_back(static_cast<uint16_t>(sizes.Get(i).As<Napi::Number>().Uint32Value()));
  }
  const auto config = object.Get("config").As<Napi::Uint8Array>();
  description.config.assign(config.Data(), config.Data() + config.ByteLength());
  const Napi::Value writable = object.Get("writableConfig");
  if (writable.IsObject()) {
    const auto range = writable.As<Napi::Object>();
    description.writableConfigOffset = range.Get("offset").As<Napi::Number>().Uint32Value();
    description.writableConfigLength = range.Get("length").As<Napi::Number>().Uint32Value();
  }
  return description;
}

}  // namespace

void NativeMachine::init(Napi::Env env, Napi::Object exports) {
  exports.Set(
      "NativeMachine",
      DefineClass(
          env, "NativeMachine",
          {InstanceMethod<&NativeMachine::addVcpu>("addVcpu"),
           InstanceMethod<&NativeMachine::addSerial>("addSerial"),
           InstanceMethod<&NativeMachine::addPower>("addPower"),
           InstanceMethod<&NativeMachine::addVirtioMmio>("addVirtioMmio"),
           InstanceMethod<&NativeMachine::addScriptDevice>("addScriptDevice"),
           InstanceMethod<&NativeMachine::addTimelinePort>("addTimelinePort"),
           InstanceMethod<&NativeMachine::start>("start"), InstanceMethod<&NativeMachine::stop>("stop"),
           InstanceMethod<&NativeMachine::pause>("pause"), InstanceMethod<&NativeMachine::resume>("resume"),
           InstanceMethod<&NativeMachine::close>("close"), InstanceMethod<&NativeMachine::metrics>("metrics"),
           InstanceMethod<&NativeMachine::timeline>("timeline"),
           InstanceMethod<&NativeMachine::pauseDevice>("pauseDevice"),
           InstanceMethod<&NativeMachine::resumeDevice>("resumeDevice"),
           InstanceMethod<&NativeMachine::saveDevice>("saveDevice"),
           InstanceMethod<&NativeMachine::restoreDevice>("restoreDevice"),
           InstanceMethod<&NativeMachine::removeDevice>("removeDevice")}));
}

NativeMachine::NativeMachine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeMachine>(info) {
  const Napi::Env env = info.Env();
  vmFd_ = toInt(info[0]);
  memory_ = unwrapMemory(info[1]);
  if (!info[2].IsFunction()) {
    throw Napi::TypeError::New(env, "NativeMachine wants a listener");
  }
  listener_ = Napi::Persistent(info[2].As<Napi::Function>());
  gate_ = ScriptGate::create(env, true);
  // process.exit() must find no thread inside KVM_RUN.
  napi_add_env_cleanup_hook(env, cleanUp, this);
}

NativeMachine::~NativeMachine() {
  napi_remove_env_cleanup_hook(Env(), cleanUp, this);
  shutDown();
}

void NativeMachine::cleanUp(void* machine) { static_cast<NativeMachine*>(machine)->shutDown(); }

void NativeMachine::event(ScriptGate::Call call) { gate_->post(std::move(call)); }

void NativeMachine::end(const char* reason, const VcpuExit& exit) {
  if (ended_.exchange(true)) {
    return;
  }
  for (auto& vcpu : vcpus_) {
    vcpu->requestStop();
  }
  // Behind everything that the guest has caused before its end, and once its console has been written.
  loop_.post([this, reason = std::string(reason), exit] {
    auto tell = [this, reason, exit] {
      event([this, reason, exit](Napi::Env env) { tellEnd(env, reason, exit); });
    };
    if (serial_) {
      serial_->close();
      serial_->whenFlushed(std::move(tell));
    } else {
      tell();
    }
  });
}

void NativeMachine::tellEnd(Napi::Env env, const std::string& reason, const VcpuExit& exit) {
  auto details = Napi::Object::New(env);
  details.Set("reason", Napi::String::New(env, reason));
  details.Set("panicked", Napi::Boolean::New(env, panicked_.load()));
  details.Set("vcpu", Napi::Number::New(env, exit.vcpu));
  details.Set("exitReason", Napi::Number::New(env, exit.reason));
  details.Set("suberror", Napi::Number::New(env, exit.suberror));
  details.Set("hardwareReason", Napi::BigInt::New(env, exit.hardwareReason));
  details.Set("errno", Napi::Number::New(env, exit.error));
  if (serial_ && serial_->sawPanic()) {
    details.Set("panicText", Napi::String::New(env, serial_->panicText()));
  }
  listener_.Call({Napi::String::New(env, "ended"), details});
}

void NativeMachine::power(PowerRequest request) {
  switch (request) {
    case PowerRequest::kPowerOff:
      end("power-off");
      break;
    case PowerRequest::kReset:
      end("reset");
      break;
    case PowerRequest::kPanic:
      // The kernel has more to say, and most then reset; one that stays is ended here.
      if (!panicked_.exchange(true)) {
        loop_.post([this] { loop_.after(kPanicGrace, [this] { end("panic"); }); });
      }
      break;
    case PowerRequest::kCrashLoaded:
      break;
  }
}

Napi::Value NativeMachine::addVcpu(const Napi::CallbackInfo& info) {
  translate(info.Env(), [&] {
    vcpus_.push_back(std::make_unique<VcpuThread>(static_cast<uint32_t>(vcpus_.size()), toInt(info[0]),
                                                  toU64(info[1]), ports_, addresses_,
                                                  [this](const VcpuExit& exit) { end("exit", exit); }));
  });
  return info.Env().Undefined();
}

Napi::Value NativeMachine::addSerial(const Napi::CallbackInfo& info) {
  translate(info.Env(), [&] {
    const int interruptFd = toInt(info[1]);
    const auto streams = info[2].As<Napi::Object>();
    Serial::Options options;
    if (streams.Get("output").IsNumber()) {
      options.sink = std::make_unique<FdSink>(toInt(streams.Get("output")));
    }
    if (streams.Get("input").IsNumber()) {
      options.source = std::make_unique<FdSource>(toInt(streams.Get("input")));
    }
    options.raiseInterrupt = [interruptFd] {
      const eventfd_t one = 1;
      (void)!::write(interruptFd, &one, sizeof one);
    };
    serial_ = std::make_shared<Serial>(loop_, std::move(options));
    ports_.insert(toU64(info[0]), 8, std::make_shared<SerialPort>(serial_));
  });
  return info.Env().Undefined();
}

Napi::Value NativeMachine::addPower(const Napi::CallbackInfo& info) {
  translate(info.Env(), [&] {
    const PowerHandler handler = [this](PowerRequest request) { power(request); };
    addresses_.insert(toU64(info[0]), AcpiPower::kSize, std::make_shared<AcpiPower>(handler));
    addresses_.insert(toU64(info[1]), Pvpanic::kSize, std::make_shared<Pvpanic>(handler));
    ports_.insert(I8042Reset::kBase, I8042Reset::kSize, std::make_shared<I8042Reset>(handler));
  });
  return info.Env().Undefined();
}

Napi::Value NativeMachine::addVirtioMmio(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  translate(env, [&] {
    const uint64_t base = toU64(info[0]);
    const auto object = info[2].As<Napi::Object>();
    virtio::Description description = readDescription(object);
    const std::string name = description.name;
    // Not an irqfd: for a pin of the I/O APIC KVM would raise that on a kernel thread, which costs two
    // switches and a grace period to make it.
    auto raise = [vm = vmFd_, line = static_cast<uint32_t>(toInt(info[1]))] {
      for (const uint32_t level : {1u, 0u}) {
        kvm_irq_level request{};
        request.irq = line;
        request.level = level;
        (void)!ioctl(vm, KVM_IRQ_LINE, &request);
      }
    };
    auto attach = [vm = vmFd_, base](int fd) {
      kvm_ioeventfd request{};
      request.addr = base + 0x50;  // QueueNotify, any value and width
      request.fd = fd;
      return ioctl(vm, KVM_IOEVENTFD, &request) == 0 ? 0 : errno;
    };
    auto listener = [this, name](virtio::TransportEvent what, const std::string& message) {
      static constexpr const char* kNames[] = {"activated", "reset", "failed", "log"};
      event([this, name, type = kNames[static_cast<int>(what)], message](Napi::Env callEnv) {
        listener_.Call({Napi::String::New(callEnv, type), Napi::String::New(callEnv, name),
                        Napi::String::New(callEnv, message)});
      });
    };
    auto transport =
        std::make_shared<virtio::MmioTransport>(std::move(description), unwrapDevice(object.Get("backend")),
                                                loop_, *memory_, raise, attach, listener);
    addresses_.insert(base, virtio::MmioTransport::kSize, transport);
    transports_.push_back(std::move(transport));
  });
  return env.Undefined();
}

Napi::Value NativeMachine::addScriptDevice(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  translate(env, [&] {
    Bus& bus = info[0].ToString().Utf8Value() == "port" ? ports_ : addresses_;
    auto failed = Napi::Function::New(env, [this](const Napi::CallbackInfo& call) {
      listener_.Call({Napi::String::New(call.Env(), "error"), call[0]});
    });
    bus.insert(toU64(info[1]), toU64(info[2]),
               std::make_shared<ScriptBusDevice>(gate_, info[3].As<Napi::Function>(),
                                                 info[4].As<Napi::Function>(), failed));
  });
  return env.Undefined();
}

Napi::Value NativeMachine::addTimelinePort(const Napi::CallbackInfo& info) {
  translate(info.Env(), [&] {
    ports_.insert(toU64(info[0]), 1, std::make_shared<TimelinePort>([this](uint8_t value) {
                    timespec now;
                    clock_gettime(CLOCK_MONOTONIC, &now);
                    std::lock_guard lock(marksMutex_);
                    if (marks_.size() < 256) {
                      marks_.emplace_back(value, static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 +
                                                     static_cast<uint64_t>(now.tv_nsec));
                    }
                  }));
  });
  return info.Env().Undefined();
}

Napi::Value NativeMachine::start(const Napi::CallbackInfo& info) {
  translate(info.Env(), [&] {
    if (started_ || closed_) {
      throw std::runtime_error("the machine has been started already");
    }
    started_ = true;
    if (serial_) {
      serial_->start();
    }
    loop_.start();
    for (auto& vcpu : vcpus_) {
      vcpu->start();
    }
  });
  return info.Env().Undefined();
}

Napi::Value NativeMachine::stop(const Napi::CallbackInfo& info) {
  end("stopped");
  return info.Env().Undefined();
}

Napi::Value NativeMachine::pause(const Napi::CallbackInfo& info) {
  // A vCPU may be waiting for JavaScript or for the I/O thread, so neither can be the one that waits for it.
  const uint32_t done = keep(info[0]);
  joinPausing();
  if (serial_) {
    serial_->setWaiting(false);  // a vCPU may be waiting there for whoever reads the console
  }
  pausing_ = std::thread([this, done] {
    for (auto& vcpu : vcpus_) {
      vcpu->pause();
    }
    // Behind what the guest has asked for so far.
    onLoop([this, done] {
      pauseDevices([this, done] { event([this, done](Napi::Env) { settle(done, {}); }); });
    });
  });
  return info.Env().Undefined();
}

uint32_t NativeMachine::keep(const Napi::Value& function) {
  kept_.emplace(++lastKept_, Napi::Persistent(function.As<Napi::Function>()));
  return lastKept_;
}

void NativeMachine::settle(uint32_t number, const std::vector<napi_value>& arguments) {
  if (const auto kept = kept_.extract(number)) {
    kept.mapped().Call(arguments);
  }
}

void NativeMachine::joinPausing() {
  if (pausing_.joinable()) {
    pausing_.join();
  }
}

Napi::Value NativeMachine::resume(const Napi::CallbackInfo& info) {
  if (serial_) {
    serial_->setWaiting(true);
  }
  onLoop([this] {
    for (auto& transport : transports_) {
      transport->resume();
    }
  });
  for (auto& vcpu : vcpus_) {
    vcpu->resume();
  }
  return info.Env().Undefined();
}

Napi::Value NativeMachine::close(const Napi::CallbackInfo& info) {
  shutDown();
  return info.Env().Undefined();
}

void NativeMachine::shutDown() {
  if (closed_) {
    return;
  }
  closed_ = true;
  ended_ = true;
  // First the waits for JavaScript, which is the thread that now waits for the others.
  gate_->close();
  for (auto& transport : transports_) {
    transport->device().abandon();
  }
  for (auto& vcpu : vcpus_) {
    vcpu->requestStop();
  }
  joinPausing();
  if (serial_) {
    serial_->close();
  }
  for (auto& vcpu : vcpus_) {
    vcpu->join();
  }
  loop_.stop();
  for (auto& transport : transports_) {
    transport->shutDown();
  }
}

Napi::Value NativeMachine::metrics(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  for (const auto& transport : transports_) {
    const virtio::Metrics& metrics = transport->device().metrics;
    auto counters = Napi::Object::New(env);
    const auto set = [&](const char* name, const std::atomic<uint64_t>& value) {
      counters.Set(name, Napi::Number::New(env, static_cast<double>(value.load(std::memory_order_relaxed))));
    };
    set("requests", metrics.requests);
    set("bytesRead", metrics.bytesRead);
    set("bytesWritten", metrics.bytesWritten);
    set("errors", metrics.errors);
    set("interrupts", metrics.interrupts);
    set("notifications", metrics.notifications);
    result.Set(transport->description().name, counters);
  }
  auto vcpus = Napi::Array::New(env);
  for (uint32_t i = 0; i < vcpus_.size(); i++) {
    auto vcpu = Napi::Object::New(env);
    vcpu.Set("exits", Napi::Number::New(env, static_cast<double>(vcpus_[i]->exits())));
    vcpus.Set(i, vcpu);
  }
  result.Set("vcpus", vcpus);
  return result;
}

Napi::Value NativeMachine::timeline(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  const uint64_t started = vcpus_.empty() ? 0 : vcpus_[0]->startedAt();
  result.Set("firstInstruction", Napi::Number::New(env, static_cast<double>(started)));
  auto marks = Napi::Array::New(env);
  std::lock_guard lock(marksMutex_);
  for (uint32_t i = 0; i < marks_.size(); i++) {
    auto mark = Napi::Object::New(env);
    mark.Set("value", Napi::Number::New(env, marks_[i].first));
    mark.Set("at", Napi::Number::New(env, static_cast<double>(marks_[i].second)));
    marks.Set(i, mark);
  }
  result.Set("marks", marks);
  return result;
}

}  // namespace tsvmm::addon
