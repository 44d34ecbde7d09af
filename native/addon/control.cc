#include "addon/control.h"

#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include "addon/arguments.h"
#include "addon/loop_watch.h"
#include "system/control_client.h"
#include "system/control_server.h"

namespace tsvmm::addon {
namespace {

Napi::Value controlRequest(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = stringArgument(info[0], "path");
  const std::string line = stringArgument(info[1], "line");
  const auto timeoutMs = static_cast<unsigned>(integerArgument(info[2], "timeoutMs", 0, INT32_MAX));
  std::string answer;
  const int error = system::controlRequest(path, line, timeoutMs, answer);
  if (error < 0) {
    return Napi::Number::New(env, error);
  }
  return Napi::String::New(env, answer);
}

/// A stream of lines; it holds itself while it is open.
class ScriptControlStream : public std::enable_shared_from_this<ScriptControlStream> {
 public:
  ScriptControlStream(Napi::Function onLine, Napi::Function onEnd)
      : onLine_(Napi::Persistent(onLine)), onEnd_(Napi::Persistent(onEnd)) {}

  int open(Napi::Env env, const std::string& path, const std::string& line) {
    if (const int error = stream_.open(path, line); error < 0) {
      return error;
    }
    watch_ =
        std::make_unique<LoopWatch>(env, stream_.fd(), true, [self = shared_from_this()] { self->serve(); });
    return 0;
  }
  void close() {
    if (watch_) {
      watch_->close();
      watch_.reset();
      stream_.close();
    }
  }

 private:
  void serve() {
    const int error = stream_.receive();
    if (error == -EAGAIN) {
      return;
    }
    std::string line;
    while (error == 0 && watch_ && stream_.next(line)) {
      callScript(onLine_,
                 [&line](Napi::Env env) { return std::vector<napi_value>{Napi::String::New(env, line)}; });
    }
    if (error < 0 && watch_) {
      close();
      callScript(onEnd_, [](Napi::Env) { return std::vector<napi_value>{}; });
    }
  }

  system::ControlStream stream_;
  Napi::FunctionReference onLine_;
  Napi::FunctionReference onEnd_;
  std::unique_ptr<LoopWatch> watch_;
};

Napi::Value controlStream(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = stringArgument(info[0], "path");
  const std::string line = stringArgument(info[1], "line");
  auto stream = std::make_shared<ScriptControlStream>(functionArgument(info[2], "onLine"),
                                                      functionArgument(info[3], "onEnd"));
  if (const int error = stream->open(env, path, line); error < 0) {
    return Napi::Number::New(env, error);
  }
  Napi::Object object = Napi::Object::New(env);
  object["close"] = Napi::Function::New(
      env, [stream](const Napi::CallbackInfo&) { stream->close(); }, "close");
  return object;
}

class ScriptControlServer : public Napi::ObjectWrap<ScriptControlServer> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "ControlServer",
                       {InstanceMethod<&ScriptControlServer::send>("send"),
                        InstanceMethod<&ScriptControlServer::close>("close"),
                        InstanceMethod<&ScriptControlServer::stop>("stop")});
  }

  explicit ScriptControlServer(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<ScriptControlServer>(info),
        onConnection_(Napi::Persistent(functionArgument(info[1], "onConnection"))),
        onLine_(Napi::Persistent(functionArgument(info[2], "onLine"))),
        onEnd_(Napi::Persistent(functionArgument(info[3], "onEnd"))),
        server_({.onConnection = [this](uint32_t id) { call(onConnection_, id); },
                 .onLine = [this](uint32_t id, std::string line,
                                  std::vector<Fd> fds) { deliver(id, line, std::move(fds)); },
                 .onEnd = [this](uint32_t id) { call(onEnd_, id); }}) {
    const Napi::Env env = info.Env();
    const std::string path = stringArgument(info[0], "path");
    if (const int error = server_.open(path); error < 0) {
      const auto thrown =
          Napi::Error::New(env, "control socket " + path + ": " + std::generic_category().message(-error));
      thrown.Value()["errno"] = Napi::Number::New(env, error);
      throw thrown;
    }
    watch_ = std::make_unique<LoopWatch>(env, server_.fd(), false, [this] { serve(); });
    Ref();  // listening, it is in use, whoever holds it; until stop()
  }

 private:
  void serve() {
    const Napi::HandleScope scope(Env());
    [[maybe_unused]] const Napi::Object self = Value();  // stop() may be called meanwhile
    server_.serve();
  }
  void call(const Napi::FunctionReference& function, uint32_t id) {
    callScript(function, [id](Napi::Env env) { return std::vector<napi_value>{Napi::Number::New(env, id)}; });
  }
  void deliver(uint32_t id, const std::string& line, std::vector<Fd> fds) {
    callScript(onLine_, [&](Napi::Env env) {
      Napi::Array numbers = Napi::Array::New(env, fds.size());
      for (uint32_t i = 0; i < fds.size(); i++) {
        numbers.Set(i, fds[i].release());
      }
      return std::vector<napi_value>{Napi::Number::New(env, id), Napi::String::New(env, line), numbers};
    });
  }

  Napi::Value send(const Napi::CallbackInfo& info) {
    const auto id = static_cast<uint32_t>(integerArgument(info[0], "id", 0, UINT32_MAX));
    return Napi::Number::New(info.Env(), server_.send(id, stringArgument(info[1], "line")));
  }
  void close(const Napi::CallbackInfo& info) {
    server_.close(static_cast<uint32_t>(integerArgument(info[0], "id", 0, UINT32_MAX)));
  }
  void stop(const Napi::CallbackInfo&) {
    if (watch_) {
      watch_->close();
      watch_.reset();
      server_.stop();
      Unref();
    }
  }

  Napi::FunctionReference onConnection_;
  Napi::FunctionReference onLine_;
  Napi::FunctionReference onEnd_;
  system::ControlServer server_;
  std::unique_ptr<LoopWatch> watch_;
};

}  // namespace

void initControl(Napi::Env env, Napi::Object exports) {
  exports["controlRequest"] = Napi::Function::New(env, controlRequest, "controlRequest");
  exports["controlStream"] = Napi::Function::New(env, controlStream, "controlStream");
  exports["ControlServer"] = ScriptControlServer::define(env);
}

}  // namespace tsvmm::addon
