#include "addon/open_gate.h"

#include <memory>
#include <string>
#include <system_error>

#include "addon/arguments.h"
#include "addon/loop_watch.h"
#include "system/open_gate.h"

namespace tsvmm::addon {
namespace {

class ScriptOpenGate : public Napi::ObjectWrap<ScriptOpenGate> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "OpenGate",
        {InstanceMethod<&ScriptOpenGate::letIn>("letIn"), InstanceMethod<&ScriptOpenGate::close>("close")});
  }

  explicit ScriptOpenGate(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<ScriptOpenGate>(info),
        onOpen_(Napi::Persistent(functionArgument(info[1], "onOpen"))) {
    const Napi::Env env = info.Env();
    const std::string folder = stringArgument(info[0], "folder");
    if (const int error = gate_.open(folder); error < 0) {
      const auto thrown = Napi::Error::New(env, folder + ": " + std::generic_category().message(-error));
      thrown.Value()["errno"] = Napi::Number::New(env, error);
      throw thrown;
    }
    watch_ = std::make_unique<LoopWatch>(env, gate_.fd(), false, [this] { serve(); });
    Ref();  // until close()
  }

 private:
  void serve() {
    const Napi::HandleScope scope(Env());
    [[maybe_unused]] const Napi::Object self = Value();  // close() may be called meanwhile
    gate_.serve([this] { callScript(onOpen_, [](Napi::Env) { return std::vector<napi_value>{}; }); });
  }
  void letIn(const Napi::CallbackInfo&) { gate_.letIn(); }
  void close(const Napi::CallbackInfo&) {
    if (watch_) {
      watch_->close();
      watch_.reset();
      gate_.close();
      Unref();
    }
  }

  Napi::FunctionReference onOpen_;
  system::OpenGate gate_;
  std::unique_ptr<LoopWatch> watch_;
};

}  // namespace

void initOpenGate(Napi::Env env, Napi::Object exports) { exports["OpenGate"] = ScriptOpenGate::define(env); }

}  // namespace tsvmm::addon
