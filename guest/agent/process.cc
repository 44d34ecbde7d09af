#include "process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "crun.h"
#include "error.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

/// Signals that wait for the process; who sends more than this meanwhile has been heard.
constexpr std::size_t kMaxPendingSignals = 64;

struct Pipe {
  Fd read;
  Fd write;
};

Pipe makePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    throw systemError("cannot make a pipe", "");
  }
  return {Fd(ends[0]), Fd(ends[1])};
}

Fd duplicate(const Fd& fd) {
  Fd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) {
    throw systemError("cannot duplicate a descriptor", "");
  }
  return copy;
}

Fd connectIf(const std::optional<std::uint32_t>& port) { return port ? startConnect(*port) : Fd(); }

std::vector<Fd> connectAll(const std::vector<PreservedPort>& ports) {
  std::vector<Fd> connections;
  for (const PreservedPort& port : ports) {
    connections.push_back(startConnect(port.port));
  }
  return connections;
}

/// A socket's path holds 107 bytes, an id up to 255: so the name is not the id's.
std::string consolePath() {
  static unsigned count = 0;
  return "/run/tsvmm-console-" + std::to_string(++count);
}

}  // namespace

Process::Process(Loop& loop, Children& children, Plan plan, Events events)
    : loop_(loop),
      children_(children),
      folder_(plan.folder),
      terminal_(plan.streams.ports.terminal.has_value()),
      shared_(plan.shared),
      windowSize_(plan.streams.windowSize),
      events_(std::move(events)) {
  try {
    start(plan);
  } catch (const std::exception&) {
    if (crun_ > 0) {
      children_.forget(crun_);
      ::kill(crun_, SIGKILL);
    }
    throw;
  }
}

Process::~Process() {
  *alive_ = false;
  children_.forget(crun_);
  children_.forget(pid_);
}

void Process::start(const Plan& plan) {
  const StreamPorts& ports = plan.streams.ports;
  // The connections are made while the next lines work.
  Fd in = connectIf(ports.standardInput);
  Fd out = connectIf(ports.standardOutput);
  Fd err = connectIf(ports.standardError);
  terminalConnection_ = connectIf(ports.terminal);
  std::vector<Fd> preserved = connectAll(plan.streams.preserved);

  std::vector<std::string> words = crunCommand(plan.command, folder_ + "/crun.log");
  words.push_back("--pid-file=" + folder_ + "/pid");
  if (terminal_) {
    console_ = std::make_unique<ConsoleSocket>(loop_, consolePath(),
                                               [this](Fd master) { attachTerminal(std::move(master)); });
    words.push_back("--console-socket=" + console_->path());
  }
  if (!preserved.empty()) {
    words.push_back("--preserve-fds=" + std::to_string(preserved.size()));
  }
  words.insert(words.end(), plan.options.begin(), plan.options.end());
  words.push_back(plan.container);

  const std::array<std::pair<const Fd*, const char*>, 4> connections = {
      {{&in, "stdin"}, {&out, "stdout"}, {&err, "stderr"}, {&terminalConnection_, "terminal"}}};
  for (const auto& [connection, name] : connections) {
    if (*connection) {
      finishConnect(connection->get(), name);
    }
  }
  for (const Fd& connection : preserved) {
    finishConnect(connection.get(), "a preserved descriptor");
  }

  const Fd null = openNull();
  // The process's ends; this process has them until crun has.
  std::vector<Fd> given;
  std::vector<std::pair<RelayEnd, RelayEnd>> inputs;
  using Access = PreservedPort::Access;
  const auto give = [&](Fd connection, Access access) {
    if (access == Access::kBoth) {
      // No pipe has both directions: the process gets the connection itself, in the state of any new
      // descriptor.
      fcntl(connection.get(), F_SETFL, 0);
      given.push_back(std::move(connection));
      return given.back().get();
    }
    // A pipe, not the connection itself: /dev/stdout cannot be opened where it is a socket.
    auto [read, write] = makePipe();
    RelayEnd host{std::move(connection), EndKind::kSocket};
    if (access == Access::kRead) {
      inputs.emplace_back(std::move(host), RelayEnd{std::move(write), EndKind::kPipe});
      given.push_back(std::move(read));
    } else {
      held_.emplace_back(RelayEnd{std::move(read), EndKind::kPipe}, std::move(host));
      given.push_back(std::move(write));
    }
    return given.back().get();
  };
  std::vector<int> descriptors = {in ? give(std::move(in), Access::kRead) : null.get(),
                                  out ? give(std::move(out), Access::kWrite) : null.get(),
                                  err ? give(std::move(err), Access::kWrite) : null.get()};
  for (std::size_t i = 0; i < preserved.size(); ++i) {
    descriptors.push_back(give(std::move(preserved[i]), plan.streams.preserved[i].access));
  }
  crun_ = children_.spawn(words, descriptors, [this](int status) { crunEnded(status); });
  for (auto& [source, sink] : inputs) {
    relayInput(std::move(source), std::move(sink));
  }
}

void Process::attachTerminal(Fd master) {
  master_ = std::move(master);
  if (windowSize_) {
    setWindowSize(master_.get(), *windowSize_);
  }
  try {
    relayInput({duplicate(terminalConnection_), EndKind::kSocket}, {duplicate(master_), EndKind::kTerminal});
    relayOutput({duplicate(master_), EndKind::kTerminal}, {std::move(terminalConnection_), EndKind::kSocket});
  } catch (const OperationError& error) {
    events_.warning(std::string("the terminal is not attached: ") + error.what());
  }
}

void Process::relayInput(RelayEnd source, RelayEnd sink) {
  inputs_.push_back(std::make_unique<Relay>(loop_, std::move(source), std::move(sink), [] {}));
}

void Process::relayOutput(RelayEnd source, RelayEnd sink) {
  outputs_.push_back(
      std::make_unique<Relay>(loop_, std::move(source), std::move(sink), [this, alive = alive_] {
        if (*alive) {
          --openOutputs_;
          settle();
        }
      }));
  ++openOutputs_;
}

void Process::stopRelays() {
  for (const auto& input : inputs_) {
    input->abort();
  }
  for (const auto& output : outputs_) {
    output->abort();
  }
  held_.clear();
  terminalConnection_.reset();
}

void Process::crunEnded(int status) {
  crun_ = 0;
  const int pid = std::atoi(readFile(folder_ + "/pid").c_str());
  if (status != 0 || pid <= 1) {
    stopRelays();
    settled_ = true;
    events_.failed(crunRefusal(folder_ + "/crun.log", status));
    return;
  }
  if (console_) {
    console_->poll();
    console_.reset();
  }
  try {
    for (auto& [source, sink] : std::exchange(held_, {})) {
      relayOutput(std::move(source), std::move(sink));
    }
  } catch (const OperationError& error) {
    events_.warning(std::string("its output is not passed on: ") + error.what());
  }
  pid_ = pid;
  if (children_.adopt(pid, [this](int itsStatus) { ended(itsStatus); })) {
    process_ = pid;
  }
  events_.running(pid);
  for (const int number : std::exchange(pendingSignals_, {})) {
    kill(number);
  }
}

void Process::ended(int status) {
  process_ = 0;
  status_ = status;
  events_.ended();
  for (const auto& input : inputs_) {
    input->abort();
  }
  if (shared_) {
    for (const auto& output : outputs_) {
      output->drain();
    }
  }
  if (!master_) {
    terminalConnection_.reset();
  }
  settle();
}

void Process::settle() {
  if (status_ && openOutputs_ == 0 && !settled_) {
    settled_ = true;
    events_.settled(*status_);
  }
}

bool Process::kill(int signal) {
  if (crun_ > 0) {
    if (pendingSignals_.size() < kMaxPendingSignals) {
      pendingSignals_.push_back(signal);
    }
    return true;
  }
  return process_ > 0 && ::kill(process_, signal) == 0;
}

void Process::resize(WindowSize size) {
  if (!terminal_) {
    throw OperationError("the process has no terminal", ENOTTY);
  }
  if (!master_) {
    windowSize_ = size;
  } else if (!setWindowSize(master_.get(), size)) {
    throw systemError("cannot resize the terminal", "");
  }
}

}  // namespace tsvmm::agent
