#include "addon/script_device.h"

#include <cstring>

#include "addon/device_handle.h"
#include "addon/value.h"

namespace tsvmm::addon {
namespace {

void report(const Napi::FunctionReference& failed, const Napi::Error& error) {
  if (!failed.IsEmpty()) {
    failed.Call({error.Value()});
  }
}

class ScriptVirtio : public virtio::Device, public std::enable_shared_from_this<ScriptVirtio> {
 public:
  ScriptVirtio(Napi::Env env, Napi::Object handlers) : gate_(ScriptGate::create(env, false)) {
    for (const char* name : {"activate", "notify", "reset", "configWritten", "failed", "pause", "resume"}) {
      const Napi::Value handler = handlers.Get(name);
      if (handler.IsFunction()) {
        handlers_->Set(name, Napi::Persistent(handler.As<Napi::Function>()));
      }
    }
  }
  ~ScriptVirtio() override = default;

  void activate(virtio::Host& host) override { begin(host, false); }
  void notify(uint16_t index) override {
    gate_->post([handlers = handlers_, index](Napi::Env env) {
      handlers->call("notify", {Napi::Number::New(env, index)});
    });
  }
  void reset() override {
    pauseDone_ = nullptr;
    saved_ = {};
    {
      std::lock_guard lock(mutex_);
      host_ = nullptr;
    }
    // Waits: once it returns, the driver may use its memory for something else.
    gate_->run([handlers = handlers_](Napi::Env) { handlers->call("reset", {}); });
  }
  void configWritten(uint32_t offset, std::span<const uint8_t> bytes) override {
    gate_->post([handlers = handlers_, offset,
                 copy = std::vector<uint8_t>(bytes.begin(), bytes.end())](Napi::Env env) {
      handlers->call("configWritten", {Napi::Number::New(env, offset),
                                       Napi::Buffer<uint8_t>::Copy(env, copy.data(), copy.size())});
    });
  }

  void pause(std::function<void()> paused) override {
    pauseDone_ = std::move(paused);
    gate_->post([handlers = handlers_](Napi::Env) { handlers->call("pause", {}); });
  }
  void resume() override {
    pauseDone_ = nullptr;
    gate_->post([handlers = handlers_](Napi::Env) { handlers->call("resume", {}); });
  }
  Value save() override { return Value::Record{{"version", kStateVersion}, {"state", saved_}}; }
  void restore(virtio::Host& host, const Value& state) override {
    if (state.number<uint32_t>("version") != kStateVersion) {
      throw ValueError("version: this build reads version 1");
    }
    saved_ = state.at("state");
    begin(host, true);
  }

  /// JavaScript has come to rest: where its queues stand, and the device's own state.
  void paused(virtio::Host& host, const std::vector<virtio::QueueState>& queues, Value state) {
    if (pauseDone_ == nullptr) {
      return;
    }
    for (uint16_t i = 0; i < queueCount_ && i < queues.size(); i++) {
      host.queue(i).setState(queues[i]);
    }
    saved_ = std::move(state);
    std::exchange(pauseDone_, nullptr)();
  }

  /// Runs `function(host)` on the I/O thread if the device is still active by then.
  void onHost(std::function<void(virtio::Host&)> function) {
    std::lock_guard lock(mutex_);
    if (host_ != nullptr) {
      host_->loop().post([self = shared_from_this(), function = std::move(function)] {
        virtio::Host* host;
        {
          std::lock_guard inner(self->mutex_);
          host = self->host_;
        }
        if (host != nullptr) {
          function(*host);
        }
      });
    }
  }
  void setQueueCount(uint16_t count) { queueCount_ = count; }
  void abandon() override { gate_->close(); }

 private:
  static constexpr uint32_t kStateVersion = 1;

  void begin(virtio::Host& host, bool restored) {
    {
      std::lock_guard lock(mutex_);
      host_ = &host;
    }
    std::vector<std::pair<virtio::QueueConfig, virtio::QueueState>> queues;
    for (uint16_t i = 0; i < queueCount_; i++) {
      const virtio::Queue& queue = host.queue(i);
      queues.emplace_back(queue.enabled() ? queue.config() : virtio::QueueConfig{}, queue.state());
    }
    gate_->post(
        [handlers = handlers_, queues, features = host.features(), restored, state = saved_](Napi::Env env) {
          auto list = Napi::Array::New(env, queues.size());
          for (uint32_t i = 0; i < queues.size(); i++) {
            const auto& [config, position] = queues[i];
            auto queue = Napi::Object::New(env);
            queue.Set("size", Napi::Number::New(env, config.size));
            queue.Set("ready", Napi::Boolean::New(env, config.ready));
            queue.Set("descriptors", Napi::Number::New(env, static_cast<double>(config.descriptors)));
            queue.Set("available", Napi::Number::New(env, static_cast<double>(config.available)));
            queue.Set("used", Napi::Number::New(env, static_cast<double>(config.used)));
            queue.Set("nextAvailable", Napi::Number::New(env, position.nextAvailable));
            queue.Set("nextUsed", Napi::Number::New(env, position.nextUsed));
            list.Set(i, queue);
          }
          handlers->call("activate", {list, Napi::BigInt::New(env, features),
                                      Napi::Boolean::New(env, restored), toJs(env, state)});
        });
  }

  struct Handlers {
    std::vector<std::pair<std::string, Napi::FunctionReference>> functions;
    void Set(const char* name, Napi::FunctionReference function) {
      functions.emplace_back(name, std::move(function));
    }
    const Napi::FunctionReference* find(const char* name) const {
      for (const auto& [key, function] : functions) {
        if (key == name) {
          return &function;
        }
      }
      return nullptr;
    }
    void call(const char* name, const std::vector<napi_value>& arguments) const {
      if (const Napi::FunctionReference* function = find(name)) {
        try {
          function->Call(arguments);
        } catch (const Napi::Error& error) {
          if (const Napi::FunctionReference* failed = find("failed")) {
            report(*failed, error);
          }
        }
      }
    }
  };

  std::shared_ptr<ScriptGate> gate_;
  std::shared_ptr<Handlers> handlers_ = std::make_shared<Handlers>();
  std::mutex mutex_;
  virtio::Host* host_ = nullptr;
  uint16_t queueCount_ = 0;
  // The I/O thread's:
  std::function<void()> pauseDone_;
  Value saved_;
};

Napi::Value createScriptVirtio(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject() || !info[1].IsNumber()) {
    throw Napi::TypeError::New(env, "createScriptVirtio wants handlers and the number of queues");
  }
  auto device = std::make_shared<ScriptVirtio>(env, info[0].As<Napi::Object>());
  device->setQueueCount(static_cast<uint16_t>(info[1].As<Napi::Number>().Uint32Value()));
  auto handle = Napi::Object::New(env);
  handle.Set("device", wrapDevice(env, device));
  handle.Set("interrupt", Napi::Function::New(env, [device](const Napi::CallbackInfo&) {
               device->onHost([](virtio::Host& host) { host.interruptDriver(); });
             }));
  handle.Set(
      "updateConfig", Napi::Function::New(env, [device](const Napi::CallbackInfo& call) {
        const auto offset = call[0].As<Napi::Number>().Uint32Value();
        const auto bytes = call[1].As<Napi::Uint8Array>();
        device->onHost([offset, copy = std::vector<uint8_t>(bytes.Data(), bytes.Data() + bytes.ByteLength())](
                           virtio::Host& host) { host.updateConfig(offset, copy); });
      }));
  handle.Set("paused", Napi::Function::New(env, [device](const Napi::CallbackInfo& call) {
               std::vector<virtio::QueueState> queues;
               const auto list = call[0].As<Napi::Array>();
               for (uint32_t i = 0; i < list.Length(); i++) {
                 const auto queue = list.Get(i).As<Napi::Object>();
                 const auto index = [&](const char* name) {
                   return static_cast<uint16_t>(queue.Get(name).As<Napi::Number>().Uint32Value());
                 };
                 queues.push_back({index("nextAvailable"), index("nextUsed")});
               }
               device->onHost([device, queues, state = fromJs(call[1])](virtio::Host& host) {
                 device->paused(host, queues, state);
               });
             }));
  handle.Set(
      "fail", Napi::Function::New(env, [device](const Napi::CallbackInfo& call) {
        device->onHost([reason = call[0].ToString().Utf8Value()](virtio::Host& host) { host.fail(reason); });
      }));
  return handle;
}

}  // namespace

ScriptBusDevice::ScriptBusDevice(std::shared_ptr<ScriptGate> gate, Napi::Function read, Napi::Function write,
                                 Napi::Function failed)
    : gate_(std::move(gate)), functions_(std::make_shared<Functions>()) {
  functions_->read = Napi::Persistent(read);
  functions_->write = Napi::Persistent(write);
  functions_->failed = Napi::Persistent(failed);
}

void ScriptBusDevice::read(uint64_t offset, std::span<uint8_t> data) {
  // Shared: the machine may be stopped, and this vCPU gone, while the function still runs.
  auto answer = std::make_shared<uint64_t>(UINT64_MAX);
  gate_->run([functions = functions_, answer, offset, size = data.size()](Napi::Env env) {
    try {
      const Napi::Value value = functions->read.Call({Napi::Number::New(env, static_cast<double>(offset)),
                                                      Napi::Number::New(env, static_cast<double>(size))});
      if (value.IsBigInt()) {
        bool lossless;
        *answer = value.As<Napi::BigInt>().Uint64Value(&lossless);
      } else if (value.IsNumber()) {
        *answer = static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
      }
    } catch (const Napi::Error& error) {
      report(functions->failed, error);
    }
  });
  std::memcpy(data.data(), answer.get(), data.size());
}

void ScriptBusDevice::write(uint64_t offset, std::span<const uint8_t> data) {
  uint64_t value = 0;
  std::memcpy(&value, data.data(), data.size());
  gate_->post([functions = functions_, offset, value, size = data.size()](Napi::Env env) {
    try {
      functions->write.Call({Napi::Number::New(env, static_cast<double>(offset)),
                             Napi::Number::New(env, static_cast<double>(size)),
                             size < 8 ? Napi::Value(Napi::Number::New(env, static_cast<double>(value)))
                                      : Napi::Value(Napi::BigInt::New(env, value))});
    } catch (const Napi::Error& error) {
      report(functions->failed, error);
    }
  });
}

void initScriptDevices(Napi::Env env, Napi::Object exports) {
  exports.Set("createScriptVirtio", Napi::Function::New(env, createScriptVirtio));
}

}  // namespace tsvmm::addon
