#include "container.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "error.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kCrun = "/usr/bin/crun";
constexpr const char* kCrunState = "/run/crun";
constexpr const char* kContainers = "/run/tsvmm/";
/// How the source of a bind mount from the share begins (docs/agent-protocol.md).
constexpr const char* kSharedSource = "mounts/";
constexpr const char* kPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More children than a start can leave behind before it is done.
constexpr std::size_t kMaxStrangers = 4096;
/// Signals that wait for the process; who sends more than this meanwhile has been heard.
constexpr std::size_t kMaxPendingSignals = 64;

/// As shells and runtimes put it: the exit code, or 128 and the signal's number.
int exitStatus(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

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

Fd openNull() {
  Fd fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!fd) {
    throw systemError("cannot open", "/dev/null");
  }
  return fd;
}

Fd duplicate(const Fd& fd) {
  Fd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) {
    throw systemError("cannot duplicate a descriptor", "");
  }
  return copy;
}

/// Starts a program with the descriptors given as its standard streams, every signal in its default state.
pid_t spawn(const std::vector<std::string>& words, const std::array<int, 3>& streams) {
  std::vector<char*> arguments;
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  char* const environment[] = {const_cast<char*>(kPath), nullptr};

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int i = 0; i < 3; ++i) {
    posix_spawn_file_actions_adddup2(&actions, streams[static_cast<std::size_t>(i)], i);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  pid_t pid = 0;
  const int error = posix_spawn(&pid, arguments[0], &actions, &attributes, arguments.data(), environment);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    throw systemError("cannot start", words.front(), error);
  }
  return pid;
}

/// Whether a mount of config.json is a bind mount of an entry of the share: it is `mounts/NAME`.
bool isSharedBind(const Json& mount) {
  const auto source = mount.find("source");
  if (source == mount.end() || source->get_ref<const std::string&>().rfind(kSharedSource, 0) != 0) {
    return false;
  }
  const Json options = mount.value("options", Json::array());
  return mount.value("type", Json()) == "bind" ||
         std::any_of(options.begin(), options.end(),
                     [](const Json& option) { return option == "bind" || option == "rbind"; });
}

}  // namespace

Container::Container(Loop& loop, RunParams params, Events events)
    : loop_(loop),
      id_(params.id),
      folder_(kContainers + params.id),
      terminal_(params.terminal),
      cgroup_(params.cgroup),
      config_(std::move(params.config)),
      windowSize_(params.windowSize),
      events_(std::move(events)) {
  config_["root"]["path"] = folder_ + "/rootfs";
  config_["linux"]["cgroupsPath"] = params.cgroup;
  try {
    mountRootfs(params.rootfs, folder_ + "/rootfs");
    if (!params.mountsTag.empty()) {
      mountSources(params.mountsTag);
    }
    writeConfig();
    start(params.streams);
  } catch (const std::exception&) {
    console_.reset();
    removeFolder();
    throw;
  }
}

Container::~Container() {
  *alive_ = false;
  console_.reset();
  removeFolder();
  removeTree(std::string(kCrunState) + "/" + id_);
}

void Container::removeFolder() {
  for (const char* name : {"/rootfs", "/mounts"}) {
    const std::string target = folder_ + name;
    // What is still in use, and what is mounted below, goes as soon as it can.
    if (umount2(target.c_str(), UMOUNT_NOFOLLOW) != 0) {
      umount2(target.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH);
    }
  }
  removeTree(folder_);
}

void Container::mountSources(const std::string& tag) {
  mountShare(tag, folder_ + "/mounts");
  const auto mounts = config_.find("mounts");
  if (mounts == config_.end()) {
    return;
  }
  for (Json& mount : *mounts) {
    if (!isSharedBind(mount)) {
      continue;
    }
    const std::string source = folder_ + "/" + mount["source"].get<std::string>();
    enterSource(source);
    mount["source"] = source;
  }
}

void Container::writeConfig() {
  const std::string path = folder_ + "/config.json";
  if (!writeFile(path, config_.dump(-1, ' ', false, Json::error_handler_t::replace))) {
    throw systemError("cannot write", path);
  }
  config_ = nullptr;
}

void Container::start(const StreamPorts& ports) {
  // The connections are made while the next lines work.
  Fd in = ports.standardInput ? startConnect(*ports.standardInput) : Fd();
  Fd out = ports.standardOutput ? startConnect(*ports.standardOutput) : Fd();
  Fd err = ports.standardError ? startConnect(*ports.standardError) : Fd();
  terminalConnection_ = ports.terminal ? startConnect(*ports.terminal) : Fd();

  std::vector<std::string> words = {kCrun,
                                    std::string("--root=") + kCrunState,
                                    "--cgroup-manager=cgroupfs",
                                    "--log=file:" + folder_ + "/crun.log",
                                    "--log-format=json",
                                    "run",
                                    "--detach",
                                    "--bundle=" + folder_,
                                    "--pid-file=" + folder_ + "/pid"};
  if (terminal_) {
    // A socket's path holds 107 bytes, an id up to 255: so the name is not the id's.
    static unsigned count = 0;
    const std::string path = "/run/tsvmm-console-" + std::to_string(++count);
    console_ = std::make_unique<ConsoleSocket>(loop_, path,
                                               [this](Fd master) { attachTerminal(std::move(master)); });
    words.push_back("--console-socket=" + path);
  }
  words.push_back(id_);

  const Fd null = openNull();
  // Pipes, not the connections themselves: /dev/stdout cannot be opened where it is a socket.
  Pipe inPipe = in ? makePipe() : Pipe{};
  Pipe outPipe = out ? makePipe() : Pipe{};
  Pipe errPipe = err ? makePipe() : Pipe{};
  const std::array<int, 3> streams = {in ? inPipe.read.get() : null.get(),
                                      out ? outPipe.write.get() : null.get(),
                                      err ? errPipe.write.get() : null.get()};
  const std::array<std::pair<const Fd*, const char*>, 4> connections = {
      {{&in, "stdin"}, {&out, "stdout"}, {&err, "stderr"}, {&terminalConnection_, "terminal"}}};
  for (const auto& [connection, name] : connections) {
    if (*connection) {
      finishConnect(connection->get(), name);
    }
  }
  crun_ = spawn(words, streams);

  if (in) {
    relayInput({std::move(in), EndKind::kSocket}, {std::move(inPipe.write), EndKind::kPipe});
  }
  if (out) {
    relayOutput({std::move(outPipe.read), EndKind::kPipe}, {std::move(out), EndKind::kSocket});
  }
  if (err) {
    relayOutput({std::move(errPipe.read), EndKind::kPipe}, {std::move(err), EndKind::kSocket});
  }
}

void Container::attachTerminal(Fd master) {
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

void Container::relayInput(RelayEnd source, RelayEnd sink) {
  input_ = std::make_unique<Relay>(loop_, std::move(source), std::move(sink), [this, alive = alive_] {
    if (*alive) {
      input_.reset();
    }
  });
}

void Container::relayOutput(RelayEnd source, RelayEnd sink) {
  ++openOutputs_;
  outputs_.push_back(
      std::make_unique<Relay>(loop_, std::move(source), std::move(sink), [this, alive = alive_] {
        if (*alive) {
          --openOutputs_;
          settle();
        }
      }));
}

void Container::stopRelays() {
  if (input_) {
    input_->abort();
  }
  for (const auto& output : outputs_) {
    output->abort();
  }
  terminalConnection_.reset();
}

bool Container::reaped(pid_t pid, int status) {
  if (pid == crun_) {
    crunExited(status);
    return true;
  }
  if (pid == process_) {
    processExited(status);
    return true;
  }
  if (starting() && strangers_.size() < kMaxStrangers) {
    strangers_.emplace_back(pid, status);
  }
  return false;
}

void Container::crunExited(int status) {
  crun_ = 0;
  const int pid = std::atoi(readFile(folder_ + "/pid").c_str());
  if (exitStatus(status) != 0 || pid <= 1) {
    cgroup_.signal(SIGKILL);
    stopRelays();
    settled_ = true;
    events_.failed(refusal(status));
    return;
  }
  if (console_) {
    console_->poll();
    console_.reset();
  }
  process_ = pid;
  events_.running(pid);
  for (const int number : std::exchange(pendingSignals_, {})) {
    ::kill(process_, number);
  }
  for (const auto& [stranger, itsStatus] : std::exchange(strangers_, {})) {
    if (stranger == process_) {
      processExited(itsStatus);
      break;
    }
  }
}

std::string Container::refusal(int status) const {
  const std::string log = readFile(folder_ + "/crun.log");
  std::string message;
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = std::min(log.find('\n', begin), log.size());
    const Json line = Json::parse(log.begin() + static_cast<std::ptrdiff_t>(begin),
                                  log.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (line.is_object() && line.value("level", Json()) == "error" && line.contains("msg") &&
        line["msg"].is_string()) {
      message = line["msg"].get<std::string>();
    }
    begin = end + 1;
  }
  if (message.empty()) {
    message = WIFSIGNALED(status) ? "crun was ended by signal " + std::to_string(WTERMSIG(status))
                                  : "crun ended with status " + std::to_string(exitStatus(status));
  }
  return message;
}

void Container::processExited(int status) {
  process_ = 0;
  status_ = exitStatus(status);
  oomKilled_ = cgroup_.oomKilled();
  // Without a PID namespace of its own others may be left; with one this finds nobody.
  cgroup_.signal(SIGKILL);
  if (input_) {
    input_->abort();
  }
  if (!master_) {
    terminalConnection_.reset();
  }
  settle();
}

void Container::settle() {
  if (status_ && openOutputs_ == 0 && !settled_) {
    settled_ = true;
    events_.exited(*status_, oomKilled_);
  }
}

void Container::kill(const KillParams& params) {
  if (starting()) {
    if (pendingSignals_.size() < kMaxPendingSignals) {
      pendingSignals_.push_back(params.signal);
    }
    return;
  }
  if (process_ == 0 ||
      (params.all ? cgroup_.signal(params.signal) == 0 : ::kill(process_, params.signal) != 0)) {
    throw OperationError("container " + id_ + " is not running", ESRCH);
  }
}

void Container::resize(WindowSize size) {
  if (!terminal_) {
    throw OperationError("container " + id_ + " has no terminal", ENOTTY);
  }
  if (!master_) {
    windowSize_ = size;
  } else if (!setWindowSize(master_.get(), size)) {
    throw systemError("cannot resize the terminal", "");
  }
}

}  // namespace tsvmm::agent
