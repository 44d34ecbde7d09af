#include "cgroup.h"

#include <dirent.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>

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

int Cgroup::signal(int number) const {
  // Atomic, so that nothing escapes by forking. Linux has it since 5.14.
  if (number == SIGKILL && access((folder_ + "/cgroup.kill").c_str(), F_OK) == 0 &&
      writeFile(folder_ + "/cgroup.kill", "1")) {
    return 1;
  }
  int count = 0;
  walk(folder_, [&](const std::string& group) {
    const std::string processes = readFile(group + "/cgroup.procs");
    const char* next = processes.c_str();
    while (*next != '\0') {
      char* end = nullptr;
      const long pid = std::strtol(next, &end, 10);
      if (end == next) {
        break;
      }
      if (pid > 1 && kill(static_cast<pid_t>(pid), number) == 0) {
        ++count;
      }
      next = *end == '\n' ? end + 1 : end;
    }
  });
  return count;
}

bool Cgroup::oomKilled() const {
  const std::string events = readFile(folder_ + "/memory.events");
  const std::size_t at = events.find("oom_kill ");
  return at != std::string::npos && std::atol(events.c_str() + at + std::strlen("oom_kill ")) > 0;
}

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
