#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "children.h"
#include "loop.h"
#include "params.h"
#include "pty.h"
#include "streams.h"

namespace tsvmm::agent {

/// A process that crun starts in a container and leaves to us: the container's own, or one of exec. Its
/// streams are relayed, its end is seen.
class Process {
 public:
  struct Events {
    /// Once: crun is done, with the process's pid as the guest's root sees it; or it refused, and why. After
    /// that nothing follows.
    std::function<void(pid_t)> running;
    std::function<void(const std::string& message)> failed;
    /// After `running`, once: it ended.
    std::function<void()> ended;
    /// After `ended`, once: all its output has been sent.
    std::function<void(int status)> settled;
    /// Something that the host's log should have.
    std::function<void(const std::string& message)> warning;
  };

  /// What there is to start.
  struct Plan {
    /// crun's command, its options, and the container's id.
    std::string command;
    std::vector<std::string> options;
    std::string container;
    /// An existing folder for crun's log and the pid.
    std::string folder;
    ProcessStreams streams;
    /// Whether others than its descendants may hold its streams when it has ended: what it wrote itself is
    /// then all its output.
    bool shared = false;
  };

  /// Connects the streams and starts crun. Throws OperationError.
  Process(Loop& loop, Children& children, Plan plan, Events events);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Sends a signal, or keeps it until the process is there. False where it has ended.
  bool kill(int signal);
  /// Throws OperationError: ENOTTY where the process has no terminal.
  void resize(WindowSize size);

 private:
  void start(const Plan& plan);
  void crunEnded(int status);
  void ended(int status);
  /// Says that all is sent, as soon as it is.
  void settle();
  void attachTerminal(Fd master);
  void relayInput(RelayEnd source, RelayEnd sink);
  void relayOutput(RelayEnd source, RelayEnd sink);
  void stopRelays();

  Loop& loop_;
  Children& children_;
  const std::string folder_;
  const bool terminal_;
  const bool shared_;
  std::optional<WindowSize> windowSize_;
  Events events_;

  pid_t crun_ = 0;
  /// As crun has told it; and while that number is the process's.
  pid_t pid_ = 0;
  pid_t process_ = 0;
  std::vector<int> pendingSignals_;
  std::optional<int> status_;
  bool settled_ = false;

  std::unique_ptr<ConsoleSocket> console_;
  Fd terminalConnection_;
  Fd master_;
  std::vector<std::unique_ptr<Relay>> inputs_;
  /// Output streams until crun is done, which says to its standard error what it refuses, too.
  std::vector<std::pair<RelayEnd, RelayEnd>> held_;
  std::vector<std::unique_ptr<Relay>> outputs_;
  int openOutputs_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tsvmm::agent
