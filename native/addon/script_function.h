#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>

namespace tsvmm::addon {

/// A function of JavaScript for other threads, whose owner may outlive the JavaScript environment: a device
/// is freed with the last external value that holds it, which can be after Node has taken its thread-safe
/// functions down.
class ScriptFunction {
 public:
  ScriptFunction(Napi::Env env, const Napi::Function& function, const char* name)
      : function_(Napi::ThreadSafeFunction::New(
            env, function, name, 0, 1,
            [](Napi::Env, std::shared_ptr<State>* held) {
              {
                std::lock_guard lock((*held)->mutex);
                (*held)->alive = false;
              }
              delete held;
            },
            new std::shared_ptr<State>(state_))) {
    function_.Unref(env);
  }
  ~ScriptFunction() {
    std::lock_guard lock(state_->mutex);
    if (state_->alive) {
      function_.Release();
    }
  }
  ScriptFunction(const ScriptFunction&) = delete;
  ScriptFunction& operator=(const ScriptFunction&) = delete;

  /// False where JavaScript is ending.
  template <typename... Arguments>
  bool call(Arguments... arguments) {
    std::lock_guard lock(state_->mutex);
    return state_->alive && function_.NonBlockingCall(arguments...) == napi_ok;
  }

 private:
  struct State {
    std::mutex mutex;
    bool alive = true;
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
  Napi::ThreadSafeFunction function_;
};

/// Tells a JavaScript function, from any thread, that there is something to look at. However often it is
/// told, one call at most is on its way: a guest cannot fill JavaScript's queue.
std::function<void()> coalescedNotifier(Napi::Env env, const Napi::Function& function, const char* name);

}  // namespace tsvmm::addon
