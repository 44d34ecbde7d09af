#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace tsvmm::system {

/// A program to start or to become. Its descriptors 0, 1, 2, ... are `fds`, in that order (-1: /dev/null),
/// and it gets no others. Its signals are as a shell would leave them: none blocked, none ignored.
struct Program {
  std::string path;               // not searched for in PATH
  std::vector<std::string> argv;  // with argv[0]
  std::vector<std::string> env;   // NAME=value
  std::vector<int> fds;
};

struct SpawnOptions {
  bool setsid = false;   // leader of a session of its own, without a terminal
  std::string cwd;       // empty: this process's
  bool ownPids = false;  // first process of a PID namespace of its own, with which all that it starts ends
};

/// Starts a child. Its pid, or -errno, also of what execve(2) says.
pid_t spawn(const Program& program, const SpawnOptions& options);

/// Becomes the program; returns only -errno, with the process's descriptors and signals as they were.
int become(const Program& program);

/// Descriptors from `first` on are closed on exec: those that the process was given are not by themselves. 0
/// or -errno.
int closeOnExec(int first);

/// The status of an ended child, as a shell has it: 0 to 255, 128 + n after signal n. -EAGAIN while it runs
/// and `noHang` is set; -ECHILD where it is none of this process's, or has been waited for.
int waitPid(pid_t pid, bool noHang);

/// The calling thread leaves (unshare(2)) or joins (setns(2)) namespaces. 0 or -errno. The mount namespace
/// can only be joined by a thread that shares its root and working directory with none: joinNamespace() takes
/// care of that.
int leaveNamespaces(int flags);
int joinNamespace(int fd, int type);
int joinNamespace(const std::string& path, int type);

/// A file in memory (CLOEXEC) that holds `size` bytes and is read from its start; nobody can change it. Or
/// -errno.
int memoryFile(const std::string& name, const void* bytes, size_t size);

}  // namespace tsvmm::system
