// What the cases of fs-exercise share: calls that must succeed or fail, files in one line.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

struct Case {
  const char* name;
  void (*body)();
};
// Each file has its own.
extern const std::vector<Case> kContentCases;
extern const std::vector<Case> kNameCases;
extern const std::vector<Case> kRightsCases;
extern const std::vector<Case> kProcessCases;

/// Says how the file system of the current folder answers a few hundred calls: a line each.
void compare();

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }

/// The result of a system call that must succeed.
inline long ok(long result, const char* what) {
  if (result < 0) fail(std::string(what) + ": " + strerror(errno));
  return result;
}
#define OK(call) ok(call, #call)

inline void check(bool holds, const char* what) {
  if (!holds) fail(std::string("not true: ") + what);
}
#define CHECK(condition) check(condition, #condition)

#define FAILS(call, error)                                                 \
  do {                                                                     \
    if ((call) >= 0) fail("succeeded: " #call);                            \
    if (errno != (error)) fail(std::string(#call ": ") + strerror(errno)); \
  } while (false)

inline int opened(const char* path, int flags, mode_t mode = 0644) {
  return static_cast<int>(ok(open(path, flags | O_CLOEXEC, mode), path));
}
inline struct stat statOf(const char* path) {
  struct stat result;
  ok(lstat(path, &result), path);
  return result;
}
inline void put(const char* path, const std::string& content) {
  const int fd = opened(path, O_WRONLY | O_CREAT | O_TRUNC);
  CHECK(write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  OK(close(fd));
}
inline std::string get(const char* path) {
  const int fd = opened(path, O_RDONLY);
  std::string content;
  char buffer[65536];
  while (true) {
    const ssize_t got = OK(read(fd, buffer, sizeof buffer));
    if (got == 0) break;
    content.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return content;
}
/// Runs `body` in a child; its exit status.
template <typename Body>
int child(Body&& body) {
  fflush(stdout);
  const pid_t pid = static_cast<pid_t>(OK(fork()));
  if (pid == 0) {
    int status = 100;
    try {
      status = body();
    } catch (const std::exception& error) {
      printf("# in the child: %s\n", error.what());
      fflush(stdout);
    }
    _exit(status);
  }
  int status;
  OK(waitpid(pid, &status, 0));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
inline std::string pattern(size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>((seed = seed * 1103515245 + 12345) >> 16);
  return bytes;
}
