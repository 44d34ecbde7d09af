#include "container.h"

#include <signal.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "crun.h"
#include "error.h"
#include "mounts.h"
#include "processes.h"
#include "stats.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kContainers = "/run/tsvmm/";
/// How the source of a bind mount from the share begins (docs/agent-protocol.md).
constexpr const char* kSharedSource = "mounts/";

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

void writeJson(const std::string& path, const Json& value) {
  if (!writeFile(path, value.dump(-1, ' ', false, Json::error_handler_t::replace))) {
    throw systemError("cannot write", path);
  }
}

}  // namespace

Container::Container(Loop& loop, Children& children, RunParams params, Begin begin, Events events)
    : loop_(loop),
      children_(children),
      id_(params.id),
      folder_(kContainers + params.id),
      cgroup_(params.cgroup),
      begin_(begin),
      config_(std::move(params.config)),
      events_(std::move(events)),
      freezer_(loop, cgroup_) {
  config_["root"]["path"] = folder_ + "/rootfs";
  config_["linux"]["cgroupsPath"] = params.cgroup;
  try {
    mountRootfs(params.rootfs, folder_ + "/rootfs");
    if (!params.mountsTag.empty()) {
      mountSources(params.mountsTag);
    }
    writeConfig();
    Process::Plan plan;
    plan.command = "create";
    plan.options = {"--bundle=" + folder_};
    plan.container = id_;
    plan.folder = folder_;
    plan.streams = std::move(params.streams);
    process_ = std::make_unique<Process>(loop_, children_, std::move(plan), processEvents());
  } catch (const std::exception&) {
    removeFolder();
    throw;
  }
}

Container::~Container() {
  *alive_ = false;
  execs_.clear();
  process_.reset();
  removeFolder();
  removeTree(crunState(id_));
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
  writeJson(folder_ + "/config.json", config_);
  config_ = nullptr;
}

Process::Events Container::processEvents() {
  Process::Events events;
  events.running = [this](pid_t pid) {
    state_ = State::kCreated;
    watchMemory();
    const std::string problem = begin_ == Begin::kRunning ? start() : "";
    if (problem.empty()) {
      events_.running(pid);
    } else {
      events_.failed(problem);
    }
  };
  events.failed = [this](const std::string& message) {
    state_ = State::kEnded;
    cgroup_.signal(SIGKILL);
    events_.failed(message);
  };
  events.ended = [this] { processEnded(); };
  events.settled = [this](int status) {
    status_ = status;
    settle();
  };
  events.warning = events_.warning;
  return events;
}

void Container::processEnded() {
  state_ = State::kEnded;
  checkMemory();
  // Without a PID namespace of its own others may be left; with one this finds nobody.
  cgroup_.signal(SIGKILL);
  freezer_.end();
  // Those that crun has not yet put into the control group get it as soon as they are there.
  for (const auto& [name, exec] : execs_) {
    exec->kill(SIGKILL);
  }
}

void Container::watchMemory() {
  try {
    memoryWatch_ = std::make_unique<CgroupWatch>(loop_, cgroup_.folder() + "/memory.events",
                                                 [this](const std::string&) { checkMemory(); });
  } catch (const OperationError& error) {
    // A kernel without the controller.
    if (error.error() != ENOENT) {
      events_.warning(error.what());
    }
  }
}

void Container::checkMemory() {
  const std::uint64_t kills = cgroup_.oomKills();
  if (std::exchange(oomKills_, kills) < kills) {
    events_.oom();
  }
}

void Container::settle() {
  if (status_ && execs_.empty()) {
    events_.exited(*std::exchange(status_, std::nullopt), oomKills_ > 0);
  }
}

std::string Container::start() {
  if (state_ == State::kEnded) {
    throw OperationError("container " + id_ + " has ended", ESRCH);
  }
  if (state_ != State::kCreated) {
    throw OperationError("container " + id_ + " is not in the state \"created\"", EINVAL);
  }
  try {
    releaseProcess(id_);
  } catch (const OperationError& error) {
    // ENXIO: nobody waits, so it has been killed, which is about to be told.
    if (error.error() != ENXIO) {
      state_ = State::kEnded;
      cgroup_.signal(SIGKILL);
      return error.what();
    }
  }
  state_ = State::kRunning;
  return "";
}

void Container::requireProcess() const {
  if (state_ != State::kCreated && state_ != State::kRunning) {
    throw OperationError("container " + id_ + " is not running", ESRCH);
  }
}

void Container::exec(ExecParams params, ExecEvents events) {
  requireProcess();
  if (freezer_.frozen()) {
    throw OperationError("container " + id_ + " is paused", EBUSY);
  }
  const std::string name = params.exec;
  if (execs_.count(name) != 0) {
    throw OperationError("container " + id_ + " has an exec " + name + " already", EEXIST);
  }
  Process::Plan plan;
  plan.command = "exec";
  plan.folder = execFolder(name);
  plan.options = {"--detach", "--process=" + plan.folder + "/process.json"};
  if (!params.cgroup.empty()) {
    plan.options.push_back("--cgroup=" + params.cgroup);
  }
  plan.container = id_;
  plan.streams = std::move(params.streams);
  plan.shared = true;
  try {
    makeFolders(plan.folder);
    writeJson(plan.folder + "/process.json", params.process);
    execs_[name] = std::make_unique<Process>(loop_, children_, std::move(plan),
                                             execProcessEvents(name, std::move(events)));
  } catch (const std::exception&) {
    execs_.erase(name);
    removeTree(execFolder(name));
    throw;
  }
}

Process::Events Container::execProcessEvents(const std::string& name, ExecEvents caller) {
  const auto shared = std::make_shared<ExecEvents>(std::move(caller));
  Process::Events events;
  events.running = [this, shared](pid_t pid) {
    if (state_ == State::kEnded) {
      cgroup_.signal(SIGKILL);
    }
    shared->running(pid);
  };
  events.failed = [this, shared, name](const std::string& message) {
    // What crun says of a container that goes away meanwhile depends on where that met it.
    const bool gone = state_ == State::kEnded || cgroup_.processes(1).empty();
    shared->failed(gone ? "container " + id_ + " is not running" : message);
    dropExec(name);
  };
  events.ended = [] {};
  events.settled = [this, shared, name](int status) {
    shared->exited(status);
    dropExec(name);
  };
  events.warning = events_.warning;
  return events;
}

void Container::dropExec(const std::string& name) {
  loop_.post([this, name, alive = alive_] {
    if (*alive) {
      execs_.erase(name);
      removeTree(execFolder(name));
      settle();
    }
  });
}

Process& Container::processOf(const std::string& exec) {
  if (exec.empty()) {
    return *process_;
  }
  const auto found = execs_.find(exec);
  if (found == execs_.end()) {
    throw OperationError("container " + id_ + " has no exec " + exec, ESRCH);
  }
  return *found->second;
}

void Container::kill(const KillParams& params) {
  // There is no control group to speak of before crun is done.
  const bool all = params.all && params.exec.empty() && state_ != State::kCreating;
  if (all ? state_ == State::kEnded || cgroup_.signal(params.signal) == 0
          : !processOf(params.exec).kill(params.signal)) {
    throw OperationError(params.exec.empty() ? "container " + id_ + " is not running"
                                             : "exec " + params.exec + " of container " + id_ + " has ended",
                         ESRCH);
  }
}

void Container::update(const Json& resources, Reply reply) {
  requireProcess();
  const std::string folder = folder_ + "/update-" + std::to_string(++updates_);
  makeFolders(folder);
  writeJson(folder + "/resources.json", resources);
  const std::string log = folder + "/crun.log";
  std::vector<std::string> words = crunCommand("update", log);
  words.push_back("--resources=" + folder + "/resources.json");
  words.push_back(id_);
  const Fd null = openNull();
  children_.spawn(words, {null.get(), null.get(), null.get()},
                  [folder, log, reply = std::move(reply)](int status) {
                    const std::string problem = status == 0 ? "" : crunRefusal(log, status);
                    removeTree(folder);
                    if (problem.empty()) {
                      reply.done();
                    } else {
                      reply.failed(problem);
                    }
                  });
}

void Container::pause(Reply reply) {
  requireProcess();
  freezer_.pause(std::move(reply));
}

void Container::resume() {
  requireProcess();
  freezer_.resume();
}

Json Container::processes() {
  requireProcess();
  return readProcesses(cgroup_.processes(kMaxProcesses));
}

Json Container::stats() {
  requireProcess();
  return readStats(cgroup_.folder());
}

void Container::resize(const ResizeParams& params) { processOf(params.exec).resize(params.size); }

}  // namespace tsvmm::agent
