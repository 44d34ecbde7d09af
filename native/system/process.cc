#include "system/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>

#include "io/fd.h"

namespace tsvmm::system {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> list;
  list.reserve(strings.size() + 1);
  for (const std::string& string : strings) {
    list.push_back(const_cast<char*>(string.c_str()));
  }
  list.push_back(nullptr);
  return list;
}

/// Descriptors of this process as copies (CLOEXEC) that are out of the way of 0 .. count-1.
int copyAbove(const std::vector<int>& fds, std::vector<Fd>& copies) {
  const int least = std::max(3, static_cast<int>(fds.size()));
  for (const int fd : fds) {
    Fd own;
    if (fd < 0) {
      own.reset(open("/dev/null", O_RDWR | O_CLOEXEC));
      if (!own) {
        return -errno;
      }
    }
    copies.emplace_back(fcntl(fd < 0 ? own.get() : fd, F_DUPFD_CLOEXEC, least));
    if (!copies.back()) {
      return -errno;
    }
  }
  return 0;
}

}  // namespace

pid_t spawn(const Program& program, const SpawnOptions& options) {
  std::vector<Fd> copies;
  if (const int error = copyAbove(program.fds, copies); error < 0) {
    return error;
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (const int error = posix_spawn_file_actions_init(&actions); error != 0) {
    return -error;
  }
  const std::unique_ptr<posix_spawn_file_actions_t, int (*)(posix_spawn_file_actions_t*)> ownActions(
      &actions, posix_spawn_file_actions_destroy);
  if (const int error = posix_spawnattr_init(&attributes); error != 0) {
    return -error;
  }
  const std::unique_ptr<posix_spawnattr_t, int (*)(posix_spawnattr_t*)> ownAttributes(
      &attributes, posix_spawnattr_destroy);
  int error = 0;
  for (size_t i = 0; i < copies.size() && error == 0; i++) {
    error = posix_spawn_file_actions_adddup2(&actions, copies[i].get(), static_cast<int>(i));
  }
  if (error == 0) {
    error = posix_spawn_file_actions_addclosefrom_np(&actions, static_cast<int>(copies.size()));
  }
  if (error == 0 && !options.cwd.empty()) {
    error = posix_spawn_file_actions_addchdir_np(&actions, options.cwd.c_str());
  }
  if (error != 0) {
    return -error;
  }
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  const int flags =
      POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (options.setsid ? POSIX_SPAWN_SETSID : 0);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, static_cast<short>(flags));
  pid_t pid = -1;
  const auto start = [&] {
    error = posix_spawn(&pid, program.path.c_str(), &actions, &attributes, pointers(program.argv).data(),
                        pointers(program.env).data());
  };
  if (!options.ownPids) {
    start();
  } else {
    // A thread that has left its PID namespace for its children's cannot start threads any more: it ends.
    try {
      std::thread([&] {
        error = unshare(CLONE_NEWPID) == 0 ? 0 : errno;
        if (error == 0) {
          start();
        }
      }).join();
    } catch (const std::system_error&) {
      error = EAGAIN;
    }
  }
  return error == 0 ? pid : -error;
}

int become(const Program& program) {
  // An execve() that fails must leave everything as it was: what can be wrong with the program is seen first.
  if (access(program.path.c_str(), X_OK) != 0) {
    return -errno;
  }
  std::vector<Fd> copies;
  if (const int error = copyAbove(program.fds, copies); error < 0) {
    return error;
  }
  const int count = static_cast<int>(copies.size());
  const int kept = std::max(3, count);
  std::vector<Fd> saved;  // what 0 .. count-1 were
  std::vector<int> savedFlags;
  for (int i = 0; i < count; i++) {
    savedFlags.push_back(fcntl(i, F_GETFD));
    saved.emplace_back(savedFlags.back() < 0 ? -1 : fcntl(i, F_DUPFD_CLOEXEC, kept));
  }
  struct sigaction actions[NSIG];
  sigset_t mask, none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, &mask);
  for (int number = 1; number < NSIG; number++) {
    // Handlers go with execve(); what is ignored would stay so.
    if (sigaction(number, nullptr, &actions[number]) == 0 && actions[number].sa_handler == SIG_IGN) {
      struct sigaction byDefault {};
      byDefault.sa_handler = SIG_DFL;
      sigaction(number, &byDefault, nullptr);
    }
  }
  int error = 0;
  for (int i = 0; i < count && error == 0; i++) {
    if (dup2(copies[static_cast<size_t>(i)].get(), i) < 0) {
      error = -errno;
    }
  }
  if (error == 0) {
    error = closeOnExec(kept);
    if (error == 0) {
      execve(program.path.c_str(), pointers(program.argv).data(), pointers(program.env).data());
      error = -errno;
    }
  }
  for (int i = 0; i < count; i++) {
    const auto index = static_cast<size_t>(i);
    if (saved[index]) {
      dup3(saved[index].get(), i, (savedFlags[index] & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    } else {
      ::close(i);
    }
  }
  for (int number = 1; number < NSIG; number++) {
    if (actions[number].sa_handler == SIG_IGN) {
      sigaction(number, &actions[number], nullptr);
    }
  }
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  return error;
}

int closeOnExec(int first) {
  // close_range() is of Linux 5.9, its CLOEXEC of 5.11.
  return close_range(static_cast<unsigned>(first), ~0U, CLOSE_RANGE_CLOEXEC) == 0 ? 0 : -errno;
}

int waitPid(pid_t pid, bool noHang) {
  int status = 0;
  pid_t result;
  do {
    result = waitpid(pid, &status, noHang ? WNOHANG : 0);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    return -errno;
  }
  if (result == 0) {
    return -EAGAIN;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int leaveNamespaces(int flags) { return unshare(flags) == 0 ? 0 : -errno; }

int joinNamespace(int fd, int type) {
  if ((type & CLONE_NEWNS) != 0 && unshare(CLONE_FS) != 0) {
    return -errno;
  }
  return setns(fd, type) == 0 ? 0 : -errno;
}

int joinNamespace(const std::string& path, int type) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd ? joinNamespace(fd.get(), type) : -errno;
}

int memoryFile(const std::string& name, const void* bytes, size_t size) {
  Fd file(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) {
    return -errno;
  }
  for (size_t written = 0; written < size;) {
    const ssize_t count = pwrite(file.get(), static_cast<const uint8_t*>(bytes) + written, size - written,
                                 static_cast<off_t>(written));
    if (count < 0 && errno != EINTR) {
      return -errno;
    }
    written += count > 0 ? static_cast<size_t>(count) : 0;
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return -errno;
  }
  return file.release();
}

}  // namespace tsvmm::system
