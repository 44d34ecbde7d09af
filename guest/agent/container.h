#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cgroup.h"
#include "loop.h"
#include "params.h"
#include "pty.h"
#include "streams.h"

namespace tsvmm::agent {

/// One container: prepared here, started by crun, then our own child, whose end we see and clean up after.
class Container {
 public:
  struct Events {
    /// Once: the process runs, with its pid as the guest's root sees it; or crun refused, and why.
    std::function<void(pid_t)> running;
    std::function<void(const std::string& message)> failed;
    /// Once, after `running`: it ended and all its output has been sent.
    std::function<void(int status, bool oomKilled)> exited;
    /// Something that the host's log should have.
    std::function<void(const std::string& message)> warning;
  };

  /// Mounts the root file system, connects the streams and starts crun. Throws OperationError, with nothing
  /// left behind.
  Container(Loop& loop, RunParams params, Events events);
  /// Unmounts, and removes what it left in /run and the control groups.
  ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  const std::string& id() const { return id_; }
  const Cgroup& cgroup() const { return cgroup_; }

  /// What waitpid said of some child. True where it was one of ours.
  bool reaped(pid_t pid, int status);
  /// Whether crun is still at work: children that nobody knows may be its, and theirs are to be kept.
  bool starting() const { return crun_ > 0; }

  /// Throws OperationError: ESRCH where the process has ended.
  void kill(const KillParams& params);
  /// Throws OperationError: ENOTTY where the process has no terminal.
  void resize(WindowSize size);

 private:
  /// Mounts the share of bind mounts and makes their sources in the configuration absolute.
  void mountSources(const std::string& tag);
  void writeConfig();
  /// With what is mounted in it.
  void removeFolder();
  void start(const StreamPorts& ports);
  void crunExited(int status);
  void processExited(int status);
  /// Says that it ended, as soon as nothing more will be sent.
  void settle();
  void attachTerminal(Fd master);
  void relayInput(RelayEnd source, RelayEnd sink);
  void relayOutput(RelayEnd source, RelayEnd sink);
  void stopRelays();
  std::string refusal(int status) const;

  Loop& loop_;
  const std::string id_;
  const std::string folder_;
  const bool terminal_;
  const Cgroup cgroup_;
  Json config_;
  std::optional<WindowSize> windowSize_;
  Events events_;

  pid_t crun_ = 0;
  pid_t process_ = 0;
  std::vector<int> pendingSignals_;
  /// Children that ended before crun told us which is the process.
  std::vector<std::pair<pid_t, int>> strangers_;
  std::optional<int> status_;
  bool oomKilled_ = false;
  bool settled_ = false;

  std::unique_ptr<ConsoleSocket> console_;
  Fd terminalConnection_;
  Fd master_;
  std::unique_ptr<Relay> input_;
  std::vector<std::unique_ptr<Relay>> outputs_;
  int openOutputs_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tsvmm::agent
