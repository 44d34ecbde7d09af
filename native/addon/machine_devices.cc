#include "addon/machine.h"
#include "addon/value.h"

namespace tsvmm::addon {

void NativeMachine::onLoop(EventLoop::Function function) {
  if (started_) {
    loop_.post(std::move(function));
  } else {
    function();
  }
}

void NativeMachine::pauseDevices(std::function<void()> done) {
  // One more than there are devices, so that it is not done before all have been asked.
  auto left = std::make_shared<size_t>(transports_.size() + 1);
  const auto paused = [left, done = std::move(done)] {
    if (--*left == 0) {
      done();
    }
  };
  for (auto& transport : transports_) {
    transport->pause(paused);
  }
  paused();
}

Napi::Value NativeMachine::onDevice(const Napi::CallbackInfo& info,
                                    std::function<void(Transport& transport, const Answer& answer)> work) {
  const Napi::Env env = info.Env();
  const std::string name = info[0].ToString().Utf8Value();
  std::shared_ptr<Transport> transport;
  for (const auto& candidate : transports_) {
    if (candidate->description().name == name) {
      transport = candidate;
    }
  }
  if (!transport || closed_) {
    throw Napi::Error::New(env, closed_ ? "the machine is closed" : name + ": no such device");
  }
  const uint32_t done = keep(info[info.Length() - 1]);
  onLoop([this, transport, done, work = std::move(work)] {
    const Answer answer = [this, done](const std::string& error, const tsvmm::Value& value) {
      event([this, done, error, value](Napi::Env callEnv) {
        settle(done, {error.empty() ? callEnv.Undefined() : Napi::Value(Napi::String::New(callEnv, error)),
                      toJs(callEnv, value)});
      });
    };
    try {
      work(*transport, answer);
    } catch (const std::exception& error) {
      answer(error.what(), {});
    }
  });
  return env.Undefined();
}

Napi::Value NativeMachine::pauseDevice(const Napi::CallbackInfo& info) {
  return onDevice(info, [](Transport& transport, const Answer& answer) {
    transport.pause([answer] { answer({}, {}); });
  });
}

Napi::Value NativeMachine::resumeDevice(const Napi::CallbackInfo& info) {
  return onDevice(info, [](Transport& transport, const Answer& answer) {
    transport.resume();
    answer({}, {});
  });
}

Napi::Value NativeMachine::saveDevice(const Napi::CallbackInfo& info) {
  return onDevice(info, [](Transport& transport, const Answer& answer) { answer({}, transport.save()); });
}

Napi::Value NativeMachine::restoreDevice(const Napi::CallbackInfo& info) {
  return onDevice(info, [state = fromJs(info[1])](Transport& transport, const Answer& answer) {
    transport.restore(state);
    answer({}, {});
  });
}

Napi::Value NativeMachine::removeDevice(const Napi::CallbackInfo& info) {
  return onDevice(info, [](Transport& transport, const Answer& answer) {
    transport.remove();
    answer({}, {});
  });
}

}  // namespace tsvmm::addon
