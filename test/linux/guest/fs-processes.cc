// Several processes at once: locks, programs that run from here.
#include <dirent.h>
#include <sys/file.h>

#include "fs-exercise.h"

namespace {

void locks() {
  put("lock", "0123456789");
  const int fd = opened("lock", O_RDWR);
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_len = 5;
  OK(fcntl(fd, F_SETLK, &range));
  CHECK(child([] {
          const int mine = opened("lock", O_RDWR);
          struct flock wanted {};
          wanted.l_type = F_WRLCK;
          wanted.l_whence = SEEK_SET;
          wanted.l_len = 1;
          FAILS(fcntl(mine, F_SETLK, &wanted), EAGAIN);
          OK(fcntl(mine, F_GETLK, &wanted));
          CHECK(wanted.l_type == F_WRLCK && wanted.l_pid == getppid());
          wanted.l_start = 5;
          wanted.l_type = F_WRLCK;
          OK(fcntl(mine, F_SETLK, &wanted));
          OK(flock(mine, LOCK_EX | LOCK_NB));
          return 0;
        }) == 0);
  OK(flock(fd, LOCK_SH | LOCK_NB));
  CHECK(child([] {
          return flock(opened("lock", O_RDONLY), LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK ? 0 : 1;
        }) == 0);
  close(fd);
}

void programs() {
  put("exercise", get("/proc/self/exe"));
  OK(chmod("exercise", 0755));
  CHECK(child([] {
          execl("./exercise", "exercise", "--exit", "42", nullptr);
          return 1;
        }) == 42);
  const int fd = open("exercise", O_WRONLY);
  CHECK(fd >= 0);
  close(fd);
  OK(chmod("exercise", 0644));
  CHECK(child([] {
          execl("./exercise", "exercise", "--exit", "42", nullptr);
          return errno == EACCES ? 7 : 1;
        }) == 7);
}

void manyProcesses() {
  OK(mkdir("parallel", 0777));
  std::vector<pid_t> children;
  fflush(stdout);
  for (int i = 0; i < 4; i++) {
    const pid_t pid = static_cast<pid_t>(OK(fork()));
    if (pid == 0) {
      int status = 1;
      try {
        for (int round = 0; round < 8; round++) {
          const std::string name = "parallel/" + std::to_string(i) + "-" + std::to_string(round);
          const std::string content = pattern(static_cast<size_t>(1 + round * 997), static_cast<unsigned>(i));
          put(name.c_str(), content);
          CHECK(get(name.c_str()) == content);
          OK(rename(name.c_str(), (name + "-moved").c_str()));
          if (round % 2 == 0) OK(unlink((name + "-moved").c_str()));
        }
        status = 0;
      } catch (const std::exception& error) {
        printf("# in the child: %s\n", error.what());
        fflush(stdout);
      }
      _exit(status);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status;
    OK(waitpid(pid, &status, 0));
    CHECK(status == 0);
  }
  DIR* folder = opendir("parallel");
  size_t count = 0;
  while (readdir(folder) != nullptr) count++;
  closedir(folder);
  CHECK(count == 2 + 4 * 4);
}

}  // namespace

const std::vector<Case> kProcessCases = {
    {"locks", locks},
    {"programs", programs},
    {"many processes", manyProcesses},
};
