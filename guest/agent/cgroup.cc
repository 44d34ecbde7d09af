#include "cgroup.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <string_view>

#include "keyed.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kRoot = "/sys/fs/cgroup";

/// Calls `visit` for each group below `folder`, the deepest first, and for `folder` itself.
void walk(const std::string& folder, const std::function<void(const std::string&)>& visit) {
  if (DIR* groups = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(groups)) {
      if (entry->d_type == DT_DIR && std::strcmp(entry->d_name, ".") != 0 &&
          std::strcmp(entry->d_name, "..") != 0) {
        walk(folder + "/" + entry->d_name, visit);
      }
    }
    closedir(groups);
  }
  visit(folder);
}

}  // namespace

std::vector<pid_t> Cgroup::processes(std::size_t most) const {
  std::vector<pid_t> pids;
  walk(folder_, [&](const std::string& group) {
    const std::string list = readFile(group + "/cgroup.procs");
    std::string_view rest = list;
    std::string_view line;
    while (pids.size() < most && nextLine(rest, line)) {
      const auto pid = static_cast<pid_t>(decimal(line));
      if (pid > 1) {
        pids.push_back(pid);
      }
    }
  });
  return pids;
}

int Cgroup::signal(int number) const {
  // Atomic, so that nothing escapes by forking. Linux has it since 5.14.
  if (number == SIGKILL && access((folder_ + "/cgroup.kill").c_str(), F_OK) == 0 &&
      writeFile(folder_ + "/cgroup.kill", "1")) {
    return 1;
  }
  const std::vector<pid_t> pids = processes(std::numeric_limits<std::size_t>::max());
  return static_cast<int>(
      std::count_if(pids.begin(), pids.end(), [&](pid_t pid) { return kill(pid, number) == 0; }));
}

std::uint64_t Cgroup::oomKills() const {
  return keyedNumber(readFile(folder_ + "/memory.events"), "oom_kill");
}

bool Cgroup::freeze(bool frozen) const { return writeFile(folder_ + "/cgroup.freeze", frozen ? "1" : "0"); }

bool Cgroup::remove() const {
  bool busy = false;
  walk(folder_,
       [&](const std::string& group) { busy = (rmdir(group.c_str()) != 0 && errno == EBUSY) || busy; });
  if (busy) {
    return false;
  }
  std::string parent = folder_;
  do {
    parent.resize(parent.rfind('/'));
  } while (parent.size() > std::strlen(kRoot) && rmdir(parent.c_str()) == 0);
  return true;
}

}  // namespace tsvmm::agent
