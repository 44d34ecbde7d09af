// The command `tsvmm`: starts Node.js with dist/tsvmm.cjs. For `create` it stays as well: the sandbox that
// holds the container's machine is then the only Node.js that a creation costs, and this program, which waits
// until the container is created, ends in its place. It also starts hooks.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

/// How every command but exec, run, boot, doctor and initramfs fails (src/cli/main.ts).
constexpr int kFailure = 1;
/// As of a shell that finds no program.
constexpr int kNoNode = 127;
/// What the sandbox sends once the container is created; all before is for people.
constexpr char kCreated = '\0';
/// The sandbox's descriptors (src/runtime/create.ts): its standard error and status, then the container's
/// streams.
constexpr int kStatus = 3;
constexpr int kStreams = 4;
/// Where a hook's namespaces begin, and how many it may be given.
constexpr int kHookNamespace = 3;
constexpr int kHookNamespaces = 2;
constexpr int kMaxArguments = 4096;

bool isOneOf(const char* word, const char* const* words) {
  for (; *words != nullptr; ++words) {
    if (strcmp(word, *words) == 0) {
      return true;
    }
  }
  return false;
}

/// Where the command is in `argv`, behind the global flags (src/cli/global-flags.ts); 0 where that is not
/// clear.
int findCommand(char** argv) {
  static const char* const kFlags[] = {"--debug", "--systemd-cgroup", nullptr};
  static const char* const kValues[] = {"--root",           "--log",  "--log-format",
                                        "--cgroup-manager", "--criu", nullptr};
  static const char* const kRootless[] = {"auto", "true", "false", nullptr};
  for (int i = 1; argv[i] != nullptr; ++i) {
    if (argv[i][0] != '-') {
      return i;
    }
    if (strchr(argv[i], '=') != nullptr || isOneOf(argv[i], kFlags)) {
      continue;
    }
    if (isOneOf(argv[i], kValues)) {
      ++i;
    } else if (strcmp(argv[i], "--rootless") == 0) {
      i += argv[i + 1] != nullptr && isOneOf(argv[i + 1], kRootless) ? 1 : 0;
    } else {
      return 0;
    }
    if (argv[i] == nullptr) {
      return 0;
    }
  }
  return 0;
}

/// A container that gets more descriptors than three needs them counted and moved, which the command in
/// TypeScript does.
bool handsOnDescriptors(char** argv) {
  const char* listen = getenv("LISTEN_FDS");
  if (listen != nullptr && *listen != '\0') {
    return true;
  }
  for (; *argv != nullptr; ++argv) {
    if (strncmp(*argv, "--preserve-fds", strlen("--preserve-fds")) == 0 || strcmp(*argv, "--help") == 0 ||
        strcmp(*argv, "-h") == 0) {
      return true;
    }
  }
  return false;
}

/// Whether this is root of a user namespace that is not the first, as under rootless podman.
bool isNamespaceRoot() {
  if (geteuid() != 0) {
    return false;
  }
  char map[64] = "";
  const int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
  const ssize_t length = fd < 0 ? -1 : read(fd, map, sizeof map - 1);
  close(fd);
  unsigned inside, outside, count;
  // proc_pid_uid_map(5): the first namespace maps all ids to themselves.
  return length > 0 && sscanf(map, "%u %u %u", &inside, &outside, &count) == 3 &&
         !(outside == 0 && count == UINT_MAX);
}

[[noreturn]] void becomeNode(char** arguments) {
  execvp(arguments[0], arguments);
  dprintf(STDERR_FILENO, "tsvmm: node cannot be started: %s\n", strerror(errno));
  _exit(kNoNode);
}

[[noreturn]] void becomeSandbox(char** arguments, int status) {
  // Out of the way of the numbers that they are to get.
  const int written = fcntl(status, F_DUPFD, 16);
  const int null = open("/dev/null", O_RDWR);
  const int nothing = fcntl(null, F_DUPFD_CLOEXEC, 16);
  for (int stream = 0; stream < 3; ++stream) {
    if (fcntl(stream, F_GETFD) < 0 || dup2(stream, kStreams + stream) < 0) {
      dup2(nothing, kStreams + stream);
    }
  }
  dup2(nothing, STDIN_FILENO);
  dup2(nothing, STDOUT_FILENO);
  dup2(written, STDERR_FILENO);
  dup2(written, kStatus);
  close_range(kStreams + 3, UINT_MAX, 0);
  setsid();
  becomeNode(arguments);
}

/// Shows what the sandbox has to say, until the container is created or the sandbox has given up.
int awaitCreation(int status) {
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(status, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return kFailure;
    }
    const char* end = static_cast<const char*>(memchr(buffer, kCreated, static_cast<size_t>(count)));
    const size_t length = end == nullptr ? static_cast<size_t>(count) : static_cast<size_t>(end - buffer);
    [[maybe_unused]] const ssize_t shown = write(STDERR_FILENO, buffer, length);
    if (end != nullptr) {
      return 0;
    }
  }
}

/// `tsvmm @hook PATH ARGV0 [ARG...]`, from src/runtime/hooks.ts: becomes a hook in the namespaces (of the
/// network, of mounts) that the descriptors from 3 on are of. The sandbox itself stays in the container's
/// meanwhile, where hooks look for it. An ordinary user may not go back to the host's; his hooks are where he
/// is.
[[noreturn]] void becomeHook(char** argv) {
  char folder[PATH_MAX];
  const bool known = getcwd(folder, sizeof folder) != nullptr;
  for (int fd = kHookNamespace; fd < kHookNamespace + kHookNamespaces; ++fd) {
    // Another mount namespace has another working directory: its root.
    [[maybe_unused]] const bool entered = setns(fd, 0) == 0 && known && chdir(folder) == 0;
    close(fd);
  }
  execv(argv[0], argv + 1);
  dprintf(STDERR_FILENO, "cannot be run: %s\n", strerror(errno));
  _exit(kNoNode);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 3 && strcmp(argv[1], "@hook") == 0) {
    becomeHook(argv + 2);
  }
  static char script[PATH_MAX + 16];
  const ssize_t length = readlink("/proc/self/exe", script, PATH_MAX);
  char* slash = length > 0 ? strrchr(script, '/') : nullptr;
  if (slash == nullptr || argc > kMaxArguments) {
    dprintf(STDERR_FILENO, "tsvmm: %s\n", slash == nullptr ? "/proc is not mounted" : "too many arguments");
    return kFailure;
  }
  strcpy(slash + 1, "tsvmm.cjs");

  static char* arguments[kMaxArguments + 4];
  int count = 0;
  arguments[count++] = const_cast<char*>("node");
  arguments[count++] = script;
  const int command = findCommand(argv);
  const bool creates = command > 0 && strcmp(argv[command], "create") == 0 && !handsOnDescriptors(argv);
  for (int i = 1; i < argc; ++i) {
    if (creates && i == command) {
      arguments[count++] = const_cast<char*>("sandbox");
      arguments[count++] = const_cast<char*>("--create");
    } else {
      arguments[count++] = argv[i];
    }
  }
  if (!creates) {
    becomeNode(arguments);
  }
  int status[2];
  if (pipe2(status, O_CLOEXEC) != 0) {
    dprintf(STDERR_FILENO, "tsvmm: no pipe for the sandbox: %s\n", strerror(errno));
    return kFailure;
  }
  // Whoever enters the namespaces of a container's process, as `podman cp` does, enters its PID namespace as
  // well, which root of a user namespace may do with one only that was made there.
  if (isNamespaceRoot() && unshare(CLONE_NEWPID) != 0) {
    dprintf(STDERR_FILENO, "tsvmm: no PID namespace for the sandbox: %s\n", strerror(errno));
    return kFailure;
  }
  const pid_t sandbox = fork();
  if (sandbox < 0) {
    dprintf(STDERR_FILENO, "tsvmm: the sandbox cannot be started: %s\n", strerror(errno));
    return kFailure;
  }
  if (sandbox == 0) {
    becomeSandbox(arguments, status[1]);
  }
  close(status[1]);
  return awaitCreation(status[0]);
}
