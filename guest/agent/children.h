#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "loop.h"

namespace tsvmm::agent {

/// The processes that are ours: programs that we start, and those that they leave to us (as the first process
/// of the guest we get every orphan). Tells each owner of its end, and nobody of a stranger's.
class Children {
 public:
  /// How it ended, as shells put it: 0 to 255, or 128 and the signal's number.
  using Handler = std::function<void(int status)>;

  explicit Children(Loop& loop) : loop_(loop) {}

  /// Starts a program with the descriptors given as its 0, 1, 2 ..., each signal in its default state, and
  /// the usual limits of open files. `ended` is called once, from reap(). Throws
  /// OperationError.
  pid_t spawn(const std::vector<std::string>& words, const std::vector<int>& descriptors, Handler ended);

  /// Says who wants to know of the end of a process that a spawned program has left to us, also where it has
  /// ended by now. To be called from the handler of that program's end. `ended` is called once, later.
  /// Returns whether the number is the process's until then.
  bool adopt(pid_t pid, Handler ended);

  /// Its end is nobody's business any more.
  void forget(pid_t pid);

  /// Collects what has ended (SIGCHLD).
  void reap();

 private:
  Loop& loop_;
  std::unordered_map<pid_t, Handler> handlers_;
  /// The programs that run.
  std::set<pid_t> programs_;
  /// Others that ended while a program runs, the latest last: one may be adopted later.
  std::deque<std::pair<pid_t, int>> strangers_;
};

/// Lets us open as many files as the relays of many processes take. What we start gets the usual limits
/// instead.
void raiseFileLimit();

}  // namespace tsvmm::agent
