#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cgroup.h"
#include "cgroup_watch.h"
#include "children.h"
#include "freezer.h"
#include "loop.h"
#include "params.h"
#include "process.h"
#include "reply.h"

namespace tsvmm::agent {

/// One container: prepared here, made by crun; its processes are our own children, whose ends we see and
/// clean up after.
class Container {
 public:
  struct Events {
    /// Once: it is there, with its process's pid as the guest's root sees it; or crun refused, and why.
    std::function<void(pid_t)> running;
    std::function<void(const std::string& message)> failed;
    /// Once, after `running`: its process ended, all its output has been sent, and nothing is left of its
    /// execs.
    std::function<void(int status, bool oomKilled)> exited;
    /// The kernel killed a process of it for want of memory.
    std::function<void()> oom;
    /// Something that the host's log should have.
    std::function<void(const std::string& message)> warning;
  };

  struct ExecEvents {
    /// Once: the process runs, or crun refused, and why.
    std::function<void(pid_t)> running;
    std::function<void(const std::string& message)> failed;
    /// Once, after `running`: it ended, and all its output has been sent.
    std::function<void(int status)> exited;
  };

  /// Whether its process waits for start().
  enum class Begin { kCreated, kRunning };

  /// Mounts the root file system, connects the streams and starts crun. Throws OperationError, with nothing
  /// left behind.
  Container(Loop& loop, Children& children, RunParams params, Begin begin, Events events);
  /// Unmounts, and removes what it left in /run and the control groups.
  ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  const std::string& id() const { return id_; }
  const Cgroup& cgroup() const { return cgroup_; }

  /// Lets the process of a created container run. Returns why that failed: then the container is of no more
  /// use, and nothing more is told of it. Empty: it runs. Throws OperationError where it does not wait.
  std::string start();
  /// Starts another process in it. Throws OperationError.
  void exec(ExecParams params, ExecEvents events);
  /// Throws OperationError: ESRCH where the process has ended.
  void kill(const KillParams& params);
  /// Throws OperationError: ENOTTY where the process has no terminal.
  void resize(const ResizeParams& params);
  /// Changes what it may use. `reply` has crun's words where it refuses. Throws OperationError.
  void update(const Json& resources, Reply reply);
  /// Throw OperationError.
  void pause(Reply reply);
  void resume();
  /// The results of container.processes and container.stats. Throw OperationError.
  Json processes();
  Json stats();

 private:
  enum class State { kCreating, kCreated, kRunning, kEnded };

  /// Mounts the share of bind mounts and makes their sources in the configuration absolute.
  void mountSources(const std::string& tag);
  void writeConfig();
  /// With what is mounted in it.
  void removeFolder();
  Process::Events processEvents();
  Process::Events execProcessEvents(const std::string& name, ExecEvents events);
  void processEnded();
  void watchMemory();
  void checkMemory();
  /// Throws OperationError unless it is there: created, or running.
  void requireProcess() const;
  /// An exec's process is gone, and is destroyed when its handlers have returned.
  void dropExec(const std::string& name);
  /// Says that it has ended, as soon as nothing more will be sent.
  void settle();
  Process& processOf(const std::string& exec);
  std::string execFolder(const std::string& name) const { return folder_ + "/exec/" + name; }

  Loop& loop_;
  Children& children_;
  const std::string id_;
  const std::string folder_;
  const Cgroup cgroup_;
  const Begin begin_;
  Json config_;
  Events events_;

  State state_ = State::kCreating;
  std::unique_ptr<Process> process_;
  Freezer freezer_;
  std::unique_ptr<CgroupWatch> memoryWatch_;
  std::uint64_t oomKills_ = 0;
  unsigned updates_ = 0;
  std::map<std::string, std::unique_ptr<Process>> execs_;
  /// Of its own process, when all of that has been sent.
  std::optional<int> status_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tsvmm::agent
