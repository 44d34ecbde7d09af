#include "children.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "error.h"
#include "io/fd.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More than the orphans that end while a program starts one process. Beyond it the oldest are forgotten.
constexpr std::size_t kMaxStrangers = 4096;
/// Of a process whose end nobody saw.
constexpr int kUnknownStatus = 255;
constexpr rlim_t kMaxOpenFiles = 524288;
/// What a container inherits where its configuration has no RLIMIT_NOFILE: the usual soft limit, and a hard
/// one that databases can raise it to.
constexpr rlim_t kUsualOpenFiles = 1024;

int exitStatus(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

/// Descriptors for a child, out of the way of the numbers that they are to get there.
std::vector<Fd> moveUp(const std::vector<int>& descriptors) {
  std::vector<Fd> moved;
  for (const int fd : descriptors) {
    moved.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(descriptors.size())));
    if (!moved.back()) {
      throw systemError("cannot duplicate a descriptor", "");
    }
  }
  return moved;
}

/// Our soft limit of open files, below the highest hard one that we can have.
void limitFiles(rlim_t soft) {
  rlimit limit = {soft, kMaxOpenFiles};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = std::min(soft, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

/// The limits that a container begins with, while it lives: a child inherits them.
class ContainerLimits {
 public:
  ContainerLimits() { limitFiles(kUsualOpenFiles); }
  ~ContainerLimits() { limitFiles(kMaxOpenFiles); }
  ContainerLimits(const ContainerLimits&) = delete;
  ContainerLimits& operator=(const ContainerLimits&) = delete;
};

}  // namespace

void raiseFileLimit() { limitFiles(kMaxOpenFiles); }

pid_t Children::spawn(const std::vector<std::string>& words, const std::vector<int>& descriptors,
                      Handler ended) {
  std::vector<char*> arguments;
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  char* const environment[] = {const_cast<char*>(kPath), nullptr};

  const std::vector<Fd> sources = moveUp(descriptors);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (std::size_t i = 0; i < sources.size(); ++i) {
    posix_spawn_file_actions_adddup2(&actions, sources[i].get(), static_cast<int>(i));
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
  int error = 0;
  {
    const ContainerLimits limits;
    error = posix_spawn(&pid, arguments[0], &actions, &attributes, arguments.data(), environment);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    throw systemError("cannot start", words.front(), error);
  }
  programs_.insert(pid);
  handlers_[pid] = std::move(ended);
  return pid;
}

bool Children::adopt(pid_t pid, Handler ended) {
  siginfo_t info{};
  // Alive, or not collected yet: what is known of an earlier process with that number is of no interest.
  if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
    handlers_[pid] = std::move(ended);
    return true;
  }
  const auto known = std::find_if(strangers_.rbegin(), strangers_.rend(),
                                  [&](const std::pair<pid_t, int>& one) { return one.first == pid; });
  if (known == strangers_.rend() && kill(pid, 0) == 0) {
    // Its parent is about to end.
    handlers_[pid] = std::move(ended);
    return true;
  }
  const int status = known == strangers_.rend() ? kUnknownStatus : known->second;
  // Under a number that no process has, so that forget() works here too.
  handlers_[-pid] = std::move(ended);
  loop_.post([this, pid, status] {
    const auto found = handlers_.find(-pid);
    if (found != handlers_.end()) {
      const Handler handler = std::move(found->second);
      handlers_.erase(found);
      handler(status);
    }
  });
  return false;
}

void Children::forget(pid_t pid) {
  handlers_.erase(pid);
  handlers_.erase(-pid);
}

void Children::reap() {
  int status = 0;
  pid_t pid = 0;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    const auto found = handlers_.find(pid);
    if (found != handlers_.end()) {
      const Handler handler = std::move(found->second);
      handlers_.erase(found);
      handler(exitStatus(status));
    } else if (!programs_.empty()) {
      strangers_.emplace_back(pid, exitStatus(status));
      if (strangers_.size() > kMaxStrangers) {
        strangers_.pop_front();
      }
    }
    programs_.erase(pid);
    if (programs_.empty()) {
      strangers_.clear();
    }
  }
}

}  // namespace tsvmm::agent
