#include <fcntl.h>
#include <napi.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>

#include "addon/device_handle.h"
#include "virtio/vsock/fd_endpoint.h"
#include "virtio/vsock/host_socket.h"
#include "virtio/vsock/line_endpoint.h"
#include "virtio/vsock/socket_endpoint.h"
#include "virtio/vsock/vsock.h"

namespace tsvmm::addon {
namespace {

using virtio::vsock::Ended;
using virtio::vsock::FdEndpoint;
using virtio::vsock::HostSocket;
using virtio::vsock::LineEndpoint;
using virtio::vsock::SocketEndpoint;
using virtio::vsock::Vsock;

/// What JavaScript hears: onEvent(kind, id, value, text, connection), where `id` is the one that JavaScript
/// gave to what it asked for.
struct Event {
  const char* kind;
  uint32_t id;
  double value = 0;
  std::string text;
  Fd fd;                               ///< becomes JavaScript's, as `value`
  std::shared_ptr<LineEndpoint> from;  ///< whose line it is
  uint32_t connection = 0;             ///< the id of what was accepted
  Fd kept{};                           ///< open until JavaScript has heard
};

/// The way of events from the I/O thread to JavaScript. It does not keep the process alive: the machine does.
/// What may wait here is bounded by what JavaScript asked for, by kBacklog, and by LineEndpoint's own limit.
class Events : public std::enable_shared_from_this<Events> {
 public:
  static constexpr int kBacklog = 1024;

  static std::shared_ptr<Events> create(Napi::Env env, Napi::Function listener, std::weak_ptr<Vsock> vsock) {
    auto events = std::make_shared<Events>();
    events->vsock_ = std::move(vsock);
    auto* held = new std::shared_ptr<Events>(events);
    const napi_status status = napi_create_threadsafe_function(
        env, listener, nullptr, Napi::String::New(env, "tsvmm-vsock"), 0, 1, held,
        [](napi_env, void* data, void*) {
          // The function is gone, with the process's environment or by close().
          auto* self = static_cast<std::shared_ptr<Events>*>(data);
          (*self)->forget();
          delete self;
        },
        events.get(),
        [](napi_env callEnv, napi_value callback, void* context, void* data) {
          const std::unique_ptr<Event> event(static_cast<Event*>(data));
          if (callEnv != nullptr) {
            static_cast<Events*>(context)->deliver(callEnv, Napi::Function(callEnv, callback), *event);
          }
        },
        &events->function_);
    if (status != napi_ok) {
      delete held;
      throw Napi::Error::New(env, "cannot make a thread-safe function");
    }
    napi_unref_threadsafe_function(env, events->function_);
    return events;
  }

  /// From any thread.
  void post(Event event) {
    auto held = std::make_unique<Event>(std::move(event));
    std::lock_guard lock(mutex_);
    if (function_ != nullptr &&
        napi_call_threadsafe_function(function_, held.get(), napi_tsfn_nonblocking) == napi_ok) {
      (void)held.release();
    }
  }
  /// A guest may connect faster than JavaScript accepts: false means too many wait.
  bool admit() {
    if (waiting_.fetch_add(1) < kBacklog) {
      return true;
    }
    waiting_.fetch_sub(1);
    return false;
  }
  /// An id beside those that JavaScript gives.
  uint32_t nextConnection() { return nextConnection_++ | 0x8000'0000; }
  void unadmit() { waiting_.fetch_sub(1); }
  /// On the JavaScript thread; idempotent.
  void close() {
    const napi_threadsafe_function function = forget();
    if (function != nullptr) {
      napi_release_threadsafe_function(function, napi_tsfn_abort);
    }
  }

 private:
  napi_threadsafe_function forget() {
    std::lock_guard lock(mutex_);
    return std::exchange(function_, nullptr);
  }

  void deliver(Napi::Env env, const Napi::Function& listener, Event& event) {
    if (event.fd) {
      unadmit();
      event.value = event.fd.release();
    }
    const size_t bytes = event.text.size();
    try {
      listener.Call({Napi::String::New(env, event.kind), Napi::Number::New(env, event.id),
                     Napi::Number::New(env, event.value), Napi::String::New(env, event.text),
                     Napi::Number::New(env, event.connection)});
    } catch (const Napi::Error& error) {
      // As from any other callback of Node's event loop.
      napi_fatal_exception(env, error.Value());
    }
    if (event.from != nullptr && event.from->consumed(bytes)) {
      if (const auto vsock = vsock_.lock()) {
        vsock->submit([endpoint = event.from] { endpoint->resume(); });
      }
    }
  }

  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  std::atomic<int> waiting_{0};
  uint32_t nextConnection_ = 0;  ///< on the I/O thread
  std::weak_ptr<Vsock> vsock_;
};

uint32_t toU32(const Napi::Value& value) {
  if (!value.IsNumber()) {
    throw Napi::TypeError::New(value.Env(), "expected a number");
  }
  return value.As<Napi::Number>().Uint32Value();
}

/// Two connected sockets; the first is for JavaScript.
std::pair<Fd, Fd> socketPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  return {Fd(fds[0]), Fd(fds[1])};
}

/// The device's end of one of JavaScript's streams. Who destroys the stream resets the connection, and a
/// connection that is reset fails the stream, before the end of its input could be taken for an ordinary one.
std::shared_ptr<SocketEndpoint> streamEndpoint(Fd socket, std::shared_ptr<Events> events, uint32_t id) {
  return std::make_shared<SocketEndpoint>(
      std::move(socket),
      SocketEndpoint::Options{.closingResets = true, .onAbort = [events, id](Fd kept) {
                                events->post({"reset", id, 0, {}, Fd(), nullptr, 0, std::move(kept)});
                              }});
}

/// The methods of the object that createVirtioVsock() returns. On the JavaScript thread; the device's own is
/// reached by submit() only.
class VsockHandle : public std::enable_shared_from_this<VsockHandle> {
 public:
  VsockHandle(std::shared_ptr<Vsock> vsock, std::shared_ptr<Events> events)
      : vsock_(std::move(vsock)), events_(std::move(events)) {}
  ~VsockHandle() { close(); }

  Napi::Object wrap(Napi::Env env) {
    auto object = Napi::Object::New(env);
    object.Set("device", wrapDevice(env, vsock_));
    method(object, "bind", &VsockHandle::bind);
    method(object, "unbind", &VsockHandle::unbind);
    method(object, "channel", &VsockHandle::channel);
    method(object, "send", &VsockHandle::send);
    method(object, "finish", &VsockHandle::finish);
    method(object, "connect", &VsockHandle::connect);
    method(object, "listen", &VsockHandle::listen);
    method(object, "listenUnix", &VsockHandle::listenUnix);
    method(object, "listenAll", &VsockHandle::listenAll);
    method(object, "unlisten", &VsockHandle::unlisten);
    method(object, "hostSocket", &VsockHandle::hostSocket);
    method(object, "closeHostSocket", &VsockHandle::closeHostSocket);
    method(object, "resetTransport", &VsockHandle::resetTransport);
    method(object, "connections", &VsockHandle::connections);
    method(object, "close", &VsockHandle::closeCalled);
    return object;
  }

 private:
  using Method = Napi::Value (VsockHandle::*)(const Napi::CallbackInfo&);

  void method(Napi::Object& object, const char* name, Method function) {
    object.Set(name,
               Napi::Function::New(
                   object.Env(),
                   [self = shared_from_this(), function](const Napi::CallbackInfo& info) -> Napi::Value {
                     try {
                       return ((*self).*function)(info);
                     } catch (const std::system_error& error) {
                       throw Napi::Error::New(info.Env(), error.what());
                     }
                   },
                   name));
  }

  /// Runs `function(vsock)` on the I/O thread. What waits for one must not keep the device alive.
  template <typename F>
  void submit(F&& function) {
    vsock_->submit([weak = std::weak_ptr<Vsock>(vsock_), function = std::forward<F>(function)]() mutable {
      if (const auto vsock = weak.lock()) {
        function(*vsock);
      }
    });
  }

  /// The same for a change of what is bound or listened to.
  template <typename F>
  void changePorts(F&& function) {
    vsock_->changePorts(
        [weak = std::weak_ptr<Vsock>(vsock_), function = std::forward<F>(function)]() mutable {
          if (const auto vsock = weak.lock()) {
            function(*vsock);
          }
        });
  }

  Vsock::EndedHandler ended(uint32_t id) {
    return [events = events_, id](const Ended& end) {
      events->post({"ended", id, static_cast<double>(end.lost), end.reset ? "reset" : "", Fd(), nullptr});
    };
  }

  /// bind(id, port, readFd, writeFd, closeFds)
  Napi::Value bind(const Napi::CallbackInfo& info) {
    const uint32_t id = toU32(info[0]);
    const uint32_t port = toU32(info[1]);
    const auto endpoint = std::make_shared<FdEndpoint>(
        FdEndpoint::Options{info[2].As<Napi::Number>().Int32Value(), info[3].As<Napi::Number>().Int32Value(),
                            info[4].As<Napi::Boolean>().Value()});
    binds_[id] = {port, endpoint};
    changePorts([port, endpoint, handler = ended(id)](Vsock& vsock) { vsock.bind(port, endpoint, handler); });
    return info.Env().Undefined();
  }

  /// unbind(id): what has come meanwhile stays
  Napi::Value unbind(const Napi::CallbackInfo& info) {
    const auto found = binds_.find(toU32(info[0]));
    if (found != binds_.end()) {
      const auto [port, weak] = found->second;
      binds_.erase(found);
      changePorts([port = port, weak = weak](Vsock& vsock) {
        if (const auto endpoint = weak.lock(); endpoint != nullptr) {
          vsock.unbind(port, endpoint.get());
        }
      });
    }
    return info.Env().Undefined();
  }

  /// channel(id, port, maxLine)
  Napi::Value channel(const Napi::CallbackInfo& info) {
    const uint32_t id = toU32(info[0]);
    const uint32_t port = toU32(info[1]);
    const uint32_t maxLine = toU32(info[2]);
    auto self = std::make_shared<std::weak_ptr<LineEndpoint>>();
    const auto endpoint = std::make_shared<LineEndpoint>(LineEndpoint::Options{
        .maxLine = maxLine,
        .maxQueued = std::max<size_t>(size_t{4} * maxLine, 16 << 20),
        .onLine =
            [events = events_, id, self](std::string line) {
              events->post({"line", id, 0, std::move(line), Fd(), self->lock()});
            },
        .onOpen =
            [events = events_, id] {
              events->post({"open", id, 0, {}, Fd(), nullptr});
            },
    });
    *self = endpoint;
    channels_[id] = {port, endpoint};
    changePorts([port, endpoint, events = events_, id](Vsock& vsock) {
      vsock.bind(port, endpoint, [events, id, endpoint](const Ended& end) {
        const char* reason = endpoint->failure() != nullptr ? endpoint->failure() : end.reset ? "reset" : "";
        events->post({"ended", id, static_cast<double>(end.lost), reason, Fd(), nullptr});
      });
    });
    return info.Env().Undefined();
  }

  /// send(id, text): a line; its newline is added
  Napi::Value send(const Napi::CallbackInfo& info) {
    const auto found = channels_.find(toU32(info[0]));
    if (found != channels_.end()) {
      std::string line = info[1].As<Napi::String>().Utf8Value();
      line += '\n';
      submit([endpoint = found->second.second, line = std::move(line)](Vsock&) { endpoint->send(line); });
    }
    return info.Env().Undefined();
  }

  /// finish(id): ends a channel once what was sent has gone
  Napi::Value finish(const Napi::CallbackInfo& info) {
    const auto found = channels_.find(toU32(info[0]));
    if (found != channels_.end()) {
      const auto [port, endpoint] = found->second;
      channels_.erase(found);
      submit([port = port, endpoint = endpoint](Vsock& vsock) {
        vsock.unbind(port, endpoint.get());
        endpoint->finish();
      });
    }
    return info.Env().Undefined();
  }

  /// connect(id, port): the descriptor of our end
  Napi::Value connect(const Napi::CallbackInfo& info) {
    const uint32_t id = toU32(info[0]);
    const uint32_t port = toU32(info[1]);
    auto pair = socketPair();
    const auto endpoint = streamEndpoint(std::move(pair.second), events_, id);
    submit([port, endpoint, events = events_, id](Vsock& vsock) {
      vsock.connect(
          port, endpoint,
          [events, id](int error, uint32_t) {
            events->post({"connected", id, static_cast<double>(error), {}, Fd(), nullptr});
          },
          nullptr);
    });
    return Napi::Number::New(info.Env(), pair.first.release());
  }

  /// listen(id, port)
  Napi::Value listen(const Napi::CallbackInfo& info) {
    const uint32_t id = toU32(info[0]);
    changePorts([port = toU32(info[1]), events = events_, id](Vsock& vsock) {
      vsock.listen(port, [events, id](uint32_t guestPort) -> std::shared_ptr<virtio::vsock::Endpoint> {
        if (!events->admit()) {
          return nullptr;
        }
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
          events->unadmit();
          return nullptr;
        }
        const uint32_t connection = events->nextConnection();
        events->post({"accepted", id, 0, std::to_string(guestPort), Fd(fds[0]), nullptr, connection, Fd()});
        return streamEndpoint(Fd(fds[1]), events, connection);
      });
    });
    return info.Env().Undefined();
  }

  /// listenUnix(port, path)
  Napi::Value listenUnix(const Napi::CallbackInfo& info) {
    changePorts([port = toU32(info[0]), path = info[1].As<Napi::String>().Utf8Value()](Vsock& vsock) {
      vsock.listenUnix(port, path);
    });
    return info.Env().Undefined();
  }

  /// listenAll(prefix | undefined)
  Napi::Value listenAll(const Napi::CallbackInfo& info) {
    std::optional<std::string> prefix;
    if (info[0].IsString()) {
      prefix = info[0].As<Napi::String>().Utf8Value();
    }
    changePorts([prefix](Vsock& vsock) { vsock.listenAll(prefix); });
    return info.Env().Undefined();
  }

  /// unlisten(port)
  Napi::Value unlisten(const Napi::CallbackInfo& info) {
    changePorts([port = toU32(info[0])](Vsock& vsock) { vsock.unlisten(port); });
    return info.Env().Undefined();
  }

  /// hostSocket(id, path)
  Napi::Value hostSocket(const Napi::CallbackInfo& info) {
    const auto socket =
        std::make_shared<HostSocket>(HostSocket::Options{.path = info[1].As<Napi::String>().Utf8Value()});
    sockets_[toU32(info[0])] = socket;
    submit([socket](Vsock& vsock) { socket->attach(vsock.shared_from_this()); });
    return info.Env().Undefined();
  }

  /// closeHostSocket(id)
  Napi::Value closeHostSocket(const Napi::CallbackInfo& info) {
    const auto found = sockets_.find(toU32(info[0]));
    if (found != sockets_.end()) {
      const auto socket = found->second;
      sockets_.erase(found);
      socket->unlink();
      submit([socket](Vsock&) { socket->detach(); });
    }
    return info.Env().Undefined();
  }

  Napi::Value resetTransport(const Napi::CallbackInfo& info) {
    submit([](Vsock& vsock) { vsock.resetTransport(); });
    return info.Env().Undefined();
  }

  Napi::Value connections(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(vsock_->connections()));
  }

  Napi::Value closeCalled(const Napi::CallbackInfo& info) {
    close();
    return info.Env().Undefined();
  }

  void close() {
    if (closed_) {
      return;
    }
    closed_ = true;
    for (const auto& [id, socket] : sockets_) {
      socket->unlink();
    }
    sockets_.clear();
    binds_.clear();
    channels_.clear();
    events_->close();
    vsock_->retire();
  }

  bool closed_ = false;
  const std::shared_ptr<Vsock> vsock_;
  const std::shared_ptr<Events> events_;
  std::map<uint32_t, std::pair<uint32_t, std::weak_ptr<FdEndpoint>>> binds_;
  std::map<uint32_t, std::pair<uint32_t, std::shared_ptr<LineEndpoint>>> channels_;
  std::map<uint32_t, std::shared_ptr<HostSocket>> sockets_;
};

}  // namespace

/// Options: {cid, onEvent}. See src/addon/virtio.ts for the methods of what it returns.
Napi::Value createVirtioVsock(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  Vsock::Options core;
  core.cid = static_cast<uint64_t>(options.Get("cid").As<Napi::Number>().Int64Value());
  const auto vsock = std::make_shared<Vsock>(core);
  const auto events = Events::create(info.Env(), options.Get("onEvent").As<Napi::Function>(), vsock);
  return std::make_shared<VsockHandle>(vsock, events)->wrap(info.Env());
}

}  // namespace tsvmm::addon
