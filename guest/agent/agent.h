#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "children.h"
#include "container.h"
#include "control.h"
#include "loop.h"
#include "reply.h"
#include "resolver.h"
#include "rpc.h"

namespace tsvmm::agent {

/// What the host can ask for: the methods of docs/agent-protocol.md, and the children's ends.
class Agent {
 public:
  /// `control` is the connection to the host, perhaps still being made; `bootNs` is CLOCK_BOOTTIME at our
  /// start. Throws OperationError.
  Agent(Loop& loop, Fd control, std::uint64_t bootNs);

  /// Sends `ready`, and a warning for each message given.
  void ready(const std::vector<std::string>& warnings);
  /// Collects the children that ended.
  void reap();
  void log(const char* level, const std::string& message);
  /// Why the loop was stopped; empty where the host asked for it.
  const std::string& reason() const { return reason_; }

 private:
  void onLine(std::string_view line);
  void dispatch(const Request& request);
  void answer(const Request& request, const Json& result);
  void refuse(const Request& request, RpcCode code, const std::string& message, const Json& data = nullptr);

  void run(const Request& request);
  void create(const Request& request);
  void begin(const Request& request, Container::Begin begin);
  void start(const Request& request);
  void exec(const Request& request);
  void kill(const Request& request);
  void resize(const Request& request);
  void processes(const Request& request);
  void stats(const Request& request);
  void update(const Request& request);
  void pause(const Request& request);
  void resume(const Request& request);
  void setNetwork(const Request& request);
  void setTime(const Request& request);
  void shutdown(const Request& request);
  Reply replyTo(const Request& request);
  void drop(const std::string& id);
  Container& container(const std::string& id);
  void removeCgroups();

  Loop& loop_;
  Children children_;
  Control control_;
  const std::uint64_t bootNs_;
  std::map<std::string, std::unique_ptr<Container>> containers_;
  /// Of containers that are gone, with processes that are not yet.
  std::vector<Cgroup> leftCgroups_;
  std::unique_ptr<Resolver> resolver_;
  std::string reason_;
};

}  // namespace tsvmm::agent
