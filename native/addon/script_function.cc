#include "addon/script_function.h"

#include <atomic>

namespace tsvmm::addon {

std::function<void()> coalescedNotifier(Napi::Env env, const Napi::Function& function, const char* name) {
  struct Shared {
    Shared(Napi::Env env, const Napi::Function& function, const char* name) : script(env, function, name) {}
    ScriptFunction script;
    std::atomic<bool> onItsWay{false};
  };
  const auto shared = std::make_shared<Shared>(env, function, name);
  return [shared] {
    if (!shared->onItsWay.exchange(true)) {
      auto* const held = new std::shared_ptr<Shared>(shared);
      const bool sent =
          shared->script.call(held, [](Napi::Env, Napi::Function callback, std::shared_ptr<Shared>* raw) {
            const std::unique_ptr<std::shared_ptr<Shared>> owned(raw);
            // Before the call: what changes while it looks is told again.
            (*raw)->onItsWay = false;
            callback.Call({});
          });
      if (!sent) {
        delete held;
      }
    }
  };
}

}  // namespace tsvmm::addon
