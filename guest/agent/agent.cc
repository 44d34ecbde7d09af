#include "agent.h"

#include <signal.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string_view>
#include <utility>

#include "error.h"
#include "mounts.h"
#include "network.h"

namespace tsvmm::agent {

namespace {

constexpr int kProtocol = 2;
constexpr std::int64_t kNanoseconds = 1'000'000'000;

void setTime(std::int64_t realtimeNs) {
  timespec time{};
  time.tv_sec = realtimeNs / kNanoseconds;
  time.tv_nsec = realtimeNs % kNanoseconds;
  if (clock_settime(CLOCK_REALTIME, &time) != 0) {
    throw systemError("cannot set the clock", "");
  }
}

Json errorData(const OperationError& error) {
  Json data;
  if (error.error() != 0) {
    data["errno"] = error.error();
  }
  if (!error.path().empty()) {
    data["path"] = error.path();
  }
  return data;
}

}  // namespace

Agent::Agent(Loop& loop, Fd control, std::uint64_t bootNs)
    : loop_(loop),
      children_(loop),
      control_(loop, std::move(control),
               {[this](std::string_view line) { onLine(line); },
                [this](const std::string& reason) {
                  reason_ = reason;
                  loop_.stop();
                }}),
      bootNs_(bootNs) {}

void Agent::ready(const std::vector<std::string>& warnings) {
  utsname name{};
  uname(&name);
  control_.send(encodeNotification(
      "ready",
      {{"protocol", kProtocol}, {"agent", TSVMM_VERSION}, {"kernel", name.release}, {"bootNs", bootNs_}}));
  for (const std::string& warning : warnings) {
    log("warn", warning);
  }
}

void Agent::log(const char* level, const std::string& message) {
  control_.send(encodeNotification("log", {{"level", level}, {"message", message}}));
}

void Agent::onLine(std::string_view line) {
  auto parsed = parseRequest(line);
  if (const auto* error = std::get_if<std::string>(&parsed)) {
    control_.send(*error);
    return;
  }
  const Request& request = std::get<Request>(parsed);
  try {
    dispatch(request);
  } catch (const ParamsError& error) {
    refuse(request, RpcCode::kInvalidParams, request.method + ": " + error.what());
  } catch (const OperationError& error) {
    refuse(request, RpcCode::kOperation, error.what(), errorData(error));
  } catch (const std::exception& error) {
    refuse(request, RpcCode::kOperation, error.what());
  }
}

void Agent::dispatch(const Request& request) {
  static const std::map<std::string_view, void (Agent::*)(const Request&)> kMethods = {
      {"container.run", &Agent::run},
      {"container.create", &Agent::create},
      {"container.start", &Agent::start},
      {"container.exec", &Agent::exec},
      {"container.kill", &Agent::kill},
      {"container.resize", &Agent::resize},
      {"container.processes", &Agent::processes},
      {"container.stats", &Agent::stats},
      {"container.update", &Agent::update},
      {"container.pause", &Agent::pause},
      {"container.resume", &Agent::resume},
      {"network.set", &Agent::setNetwork},
      {"machine.time", &Agent::setTime},
      {"machine.shutdown", &Agent::shutdown},
  };
  const auto method = kMethods.find(request.method);
  if (method == kMethods.end()) {
    refuse(request, RpcCode::kMethodNotFound, "there is no method \"" + request.method + "\"");
    return;
  }
  (this->*method->second)(request);
}

void Agent::answer(const Request& request, const Json& result) {
  if (request.id) {
    control_.send(encodeResult(*request.id, result));
  }
}

void Agent::refuse(const Request& request, RpcCode code, const std::string& message, const Json& data) {
  if (request.id) {
    control_.send(encodeError(*request.id, code, message, data));
  } else {
    log("error", message);
  }
}

Container& Agent::container(const std::string& id) {
  const auto found = containers_.find(id);
  // A null one is about to be made.
  if (found == containers_.end() || !found->second) {
    throw OperationError("there is no container " + id, ESRCH);
  }
  return *found->second;
}

Reply Agent::replyTo(const Request& request) {
  const Request caller{request.id, request.method, nullptr};
  return {[this, caller] { answer(caller, Json::object()); },
          [this, caller](const std::string& message) { refuse(caller, RpcCode::kOperation, message); }};
}

void Agent::run(const Request& request) { begin(request, Container::Begin::kRunning); }

void Agent::create(const Request& request) { begin(request, Container::Begin::kCreated); }

void Agent::begin(const Request& request, Container::Begin begin) {
  RunParams params = parseRunParams(request.params);
  const std::string id = params.id;
  if (containers_.count(id) != 0) {
    throw OperationError("container " + id + " exists", EEXIST);
  }
  removeCgroups();
  Request caller{request.id, request.method, nullptr};
  Container::Events events;
  events.running = [this, caller](pid_t pid) { answer(caller, {{"pid", pid}}); };
  events.failed = [this, caller, id](const std::string& message) {
    refuse(caller, RpcCode::kOperation, message);
    drop(id);
  };
  events.exited = [this, id](int status, bool oomKilled) {
    Json params = {{"id", id}, {"status", status}};
    if (oomKilled) {
      params["oomKilled"] = true;
    }
    control_.send(encodeNotification("container.exit", params));
    drop(id);
  };
  events.oom = [this, id] { control_.send(encodeNotification("container.oom", {{"id", id}})); };
  events.warning = [this, id](const std::string& message) { log("warn", id + ": " + message); };
  containers_[id] = nullptr;
  try {
    containers_[id] =
        std::make_unique<Container>(loop_, children_, std::move(params), begin, std::move(events));
  } catch (...) {
    containers_.erase(id);
    throw;
  }
}

void Agent::start(const Request& request) {
  const std::string id = parseIdParams(request.params);
  const std::string problem = container(id).start();
  if (problem.empty()) {
    answer(request, Json::object());
  } else {
    refuse(request, RpcCode::kOperation, problem);
    drop(id);
  }
}

void Agent::exec(const Request& request) {
  ExecParams params = parseExecParams(request.params);
  Request caller{request.id, request.method, nullptr};
  Container::ExecEvents events;
  events.running = [this, caller](pid_t pid) { answer(caller, {{"pid", pid}}); };
  events.failed = [this, caller](const std::string& message) {
    refuse(caller, RpcCode::kOperation, message);
  };
  events.exited = [this, id = params.id, name = params.exec](int status) {
    control_.send(encodeNotification("container.execExit", {{"id", id}, {"exec", name}, {"status", status}}));
  };
  Container& in = container(params.id);
  in.exec(std::move(params), std::move(events));
}

void Agent::kill(const Request& request) {
  const KillParams params = parseKillParams(request.params);
  container(params.id).kill(params);
  answer(request, Json::object());
}

void Agent::resize(const Request& request) {
  const ResizeParams params = parseResizeParams(request.params);
  container(params.id).resize(params);
  answer(request, Json::object());
}

void Agent::processes(const Request& request) {
  answer(request, container(parseIdParams(request.params)).processes());
}

void Agent::stats(const Request& request) {
  answer(request, container(parseIdParams(request.params)).stats());
}

void Agent::update(const Request& request) {
  const UpdateParams params = parseUpdateParams(request.params);
  container(params.id).update(params.resources, replyTo(request));
}

void Agent::pause(const Request& request) {
  container(parseIdParams(request.params)).pause(replyTo(request));
}

void Agent::resume(const Request& request) {
  container(parseIdParams(request.params)).resume();
  answer(request, Json::object());
}

void Agent::setTime(const Request& request) {
  agent::setTime(parseTimeParams(request.params));
  answer(request, Json::object());
}

/// Its own handlers call this, so it goes when they have returned.
void Agent::drop(const std::string& id) {
  loop_.post([this, id] {
    const auto found = containers_.find(id);
    if (found != containers_.end()) {
      leftCgroups_.push_back(found->second->cgroup());
      containers_.erase(found);
      removeCgroups();
    }
  });
}

void Agent::removeCgroups() {
  leftCgroups_.erase(std::remove_if(leftCgroups_.begin(), leftCgroups_.end(),
                                    [](const Cgroup& cgroup) { return cgroup.remove(); }),
                     leftCgroups_.end());
}

void Agent::reap() {
  children_.reap();
  removeCgroups();
}

void Agent::setNetwork(const Request& request) {
  NetworkParams params = parseNetworkParams(request.params);
  const std::optional<ResolverParams> resolver = params.resolver;
  agent::setNetwork(std::move(params));
  resolver_.reset();
  if (resolver) {
    resolver_ = std::make_unique<Resolver>(loop_, resolver->address, resolver->port);
  }
  answer(request, Json::object());
}

void Agent::shutdown(const Request& request) {
  // Everything but ourselves. Their exits are of no more interest.
  ::kill(-1, SIGKILL);
  while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
  }
  sync();
  for (const std::string& path : unmountContainers()) {
    log("warn", path + " is in use and was unmounted late");
  }
  sync();
  answer(request, Json::object());
}

}  // namespace tsvmm::agent
