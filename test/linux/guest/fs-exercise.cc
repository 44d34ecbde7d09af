// Runs in a guest, in a folder that is on virtio-fs, and does what ordinary programs do to files. One line a
// case: "ok NAME" or "not ok NAME: WHY". Linked statically.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

/// The result of a system call that must succeed.
long ok(long result, const char* what) {
  if (result < 0) fail(std::string(what) + ": " + strerror(errno));
  return result;
}
#define OK(call) ok(call, #call)

void check(bool holds, const char* what) {
  if (!holds) fail(std::string("not true: ") + what);
}
#define CHECK(condition) check(condition, #condition)

#define FAILS(call, error)                                                 \
  do {                                                                     \
    if ((call) >= 0) fail("succeeded: " #call);                            \
    if (errno != (error)) fail(std::string(#call ": ") + strerror(errno)); \
  } while (false)

int opened(const char* path, int flags, mode_t mode = 0644) {
  return static_cast<int>(ok(open(path, flags | O_CLOEXEC, mode), path));
}
struct stat statOf(const char* path) {
  struct stat result;
  ok(lstat(path, &result), path);
  return result;
}
void put(const char* path, const std::string& content) {
  const int fd = opened(path, O_WRONLY | O_CREAT | O_TRUNC);
  CHECK(write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  OK(close(fd));
}
std::string get(const char* path) {
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
std::string pattern(size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>((seed = seed * 1103515245 + 12345) >> 16);
  return bytes;
}

void fileContent() {
  const std::string big = pattern(600'000, 1);
  put("big", big);
  CHECK(get("big") == big);
  CHECK(statOf("big").st_size == 600'000);
  const int fd = opened("big", O_RDWR);
  CHECK(pwrite(fd, "HELLO", 5, 599'998) == 5);
  CHECK(statOf("big").st_size == 600'003);
  char at[5];
  CHECK(pread(fd, at, 5, 599'998) == 5 && memcmp(at, "HELLO", 5) == 0);
  OK(ftruncate(fd, 10));
  OK(ftruncate(fd, 20));
  CHECK(pread(fd, at, 5, 8) == 5 && memcmp(at + 2, "\0\0\0", 3) == 0);
  OK(fsync(fd));
  OK(fdatasync(fd));
  OK(syncfs(fd));
  close(fd);
}

void append() {
  put("log", "");
  const int one = opened("log", O_WRONLY | O_APPEND);
  const int two = opened("log", O_WRONLY | O_APPEND);
  for (int i = 0; i < 10; i++) {
    CHECK(write(one, "a", 1) == 1);
    CHECK(write(two, "b", 1) == 1);
  }
  CHECK(get("log") == "abababababababababab");
  close(one);
  close(two);
}

void unlinkedWhileOpen() {
  const int fd = opened("gone", O_RDWR | O_CREAT | O_EXCL);
  OK(unlink("gone"));
  CHECK(write(fd, "still", 5) == 5);
  char at[5];
  CHECK(pread(fd, at, 5, 0) == 5 && memcmp(at, "still", 5) == 0);
  struct stat attributes;
  OK(fstat(fd, &attributes));
  CHECK(attributes.st_nlink == 0 && attributes.st_size == 5);
  OK(fchmod(fd, 0600));
  OK(ftruncate(fd, 2));
  FAILS(access("gone", F_OK), ENOENT);
  close(fd);
  OK(mkdir("gonedir", 0755));
  const int folder = opened("gonedir", O_RDONLY | O_DIRECTORY);
  OK(rmdir("gonedir"));
  FAILS(openat(folder, "x", O_CREAT | O_RDWR, 0600), ENOENT);
  close(folder);
}

void sharedMapping() {
  put("map", std::string(10000, 'x'));
  const int fd = opened("map", O_RDWR);
  auto* at = static_cast<char*>(mmap(nullptr, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  CHECK(at != MAP_FAILED);
  CHECK(at[9999] == 'x');
  at[0] = 'A';
  at[5000] = 'B';
  CHECK(child([&] {
          at[9999] = 'C';
          return 0;
        }) == 0);
  OK(msync(at, 10000, MS_SYNC));
  close(fd);
  OK(munmap(at, 10000));
  const std::string now = get("map");
  CHECK(now[0] == 'A' && now[5000] == 'B' && now[9999] == 'C' && now[1] == 'x' && now.size() == 10000);
  // Pages of a file that is opened for appending are written back to their place.
  const int log = opened("map", O_RDWR | O_APPEND);
  at = static_cast<char*>(mmap(nullptr, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, log, 0));
  CHECK(at != MAP_FAILED);
  at[7] = 'D';
  OK(msync(at, 10000, MS_SYNC));
  OK(munmap(at, 10000));
  close(log);
  CHECK(get("map").size() == 10000 && get("map")[7] == 'D');
}

void namesAndLinks() {
  OK(mkdir("d", 0750));
  CHECK((statOf("d").st_mode & 07777) == 0750);
  FAILS(mkdir("d", 0750), EEXIST);
  put("d/a", "a");
  FAILS(rmdir("d"), ENOTEMPTY);
  FAILS(unlink("d"), EISDIR);
  OK(link("d/a", "d/b"));
  CHECK(statOf("d/b").st_nlink == 2 && statOf("d/a").st_ino == statOf("d/b").st_ino);
  OK(symlink("a", "d/l"));
  CHECK(get("d/l") == "a");
  char target[10];
  CHECK(readlink("d/l", target, sizeof target) == 1 && target[0] == 'a');
  FAILS(open("d/l", O_RDONLY | O_NOFOLLOW), ELOOP);
  OK(symlink("/proc/self/status", "d/out"));
  CHECK(get("d/out").find("Name:") == 0);
  FAILS(open("d/missing", O_RDONLY), ENOENT);
  FAILS(open("d/a/x", O_RDONLY), ENOTDIR);
  FAILS(open("d/a", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
  FAILS(open(std::string(300, 'n').c_str(), O_RDONLY), ENAMETOOLONG);
  OK(rename("d/a", "moved"));
  FAILS(access("d/a", F_OK), ENOENT);
  put("other", "other");
  FAILS(renameat2(AT_FDCWD, "moved", AT_FDCWD, "other", RENAME_NOREPLACE), EEXIST);
  OK(renameat2(AT_FDCWD, "moved", AT_FDCWD, "other", RENAME_EXCHANGE));
  CHECK(get("other") == "a" && get("moved") == "other");
  OK(rename("moved", "other"));
  CHECK(get("other") == "other");
  FAILS(rename("d", "d/inside"), EINVAL);
  OK(mkdir("e", 0755));
  OK(rename("e", "d/e"));
  OK(chdir("d/e"));
  put("../from-inside", "x");
  OK(chdir("../.."));
  CHECK(get("d/from-inside") == "x");
}

void manyEntries() {
  OK(mkdir("many", 0755));
  std::set<std::string> names{".", ".."};
  for (int i = 0; i < 150; i++) {
    const std::string name = "entry-" + std::to_string(i) + std::string(static_cast<size_t>(i % 100), 'x');
    close(opened(("many/" + name).c_str(), O_CREAT | O_WRONLY));
    names.insert(name);
  }
  for (int round = 0; round < 2; round++) {
    DIR* folder = opendir("many");
    CHECK(folder != nullptr);
    std::set<std::string> seen;
    size_t count = 0;
    while (const dirent* entry = readdir(folder)) {
      seen.insert(entry->d_name);
      count++;
      if (round == 0 && count % 100 == 0)
        CHECK(statOf((std::string("many/") + entry->d_name).c_str()).st_size >= 0);
    }
    CHECK(seen == names && count == names.size());
    rewinddir(folder);
    CHECK(readdir(folder) != nullptr);
    closedir(folder);
  }
  // rm -r: removing while reading.
  DIR* folder = opendir("many");
  size_t removed = 0;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') {
      OK(unlinkat(dirfd(folder), entry->d_name, 0));
      removed++;
    }
  }
  closedir(folder);
  CHECK(removed == 150);
  OK(rmdir("many"));
}

void attributes() {
  put("attr", "x");
  OK(chmod("attr", 04751));
  CHECK((statOf("attr").st_mode & 07777) == 04751);
  const timespec times[2] = {{1000, 5}, {2000, 123456789}};
  OK(utimensat(AT_FDCWD, "attr", times, 0));
  CHECK(statOf("attr").st_atim.tv_sec == 1000 && statOf("attr").st_mtim.tv_nsec == 123456789);
  const timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  OK(utimensat(AT_FDCWD, "attr", now, 0));
  CHECK(statOf("attr").st_atim.tv_sec == 1000 && statOf("attr").st_mtim.tv_sec > 1'000'000'000);
  OK(symlink("attr", "attr-link"));
  OK(utimensat(AT_FDCWD, "attr-link", times, AT_SYMLINK_NOFOLLOW));
  CHECK(statOf("attr-link").st_mtim.tv_sec == 2000);
  OK(lchown("attr-link", 7, 8));
  CHECK(statOf("attr-link").st_uid == 7 && statOf("attr").st_uid == 0);
  OK(chown("attr", 1000, 1001));
  CHECK(statOf("attr").st_uid == 1000 && statOf("attr").st_gid == 1001 &&
        (statOf("attr").st_mode & 07777) == 0751);
  OK(truncate("attr", 5));
  CHECK(statOf("attr").st_size == 5);
  struct statfs space;
  OK(statfs(".", &space));
  CHECK(space.f_blocks > 0 && space.f_type == 0x65735546);
  int flags = 0;
  const int fd = opened("attr", O_RDONLY);
  FAILS(ioctl(fd, 0x80086601, &flags), ENOTTY);
  close(fd);
}

void otherUsers() {
  OK(chmod(".", 0755));
  OK(mkdir("theirs", 0700));
  OK(chown("theirs", 1000, 1000));
  put("private", "secret");
  OK(chmod("private", 0600));
  put("program", "x");
  OK(chmod("program", 06777));
  OK(mkdir("setgid", 0777));
  OK(chown("setgid", 0, 50));
  OK(chmod("setgid", 02777));
  CHECK(child([] {
          OK(setgid(1000));
          OK(setuid(1000));
          umask(022);
          FAILS(open("private", O_RDONLY), EACCES);
          FAILS(open("new", O_CREAT | O_WRONLY, 0600), EACCES);
          FAILS(unlink("private"), EACCES);
          put("theirs/file", "mine");
          CHECK(statOf("theirs/file").st_uid == 1000 && statOf("theirs/file").st_gid == 1000);
          CHECK((statOf("theirs/file").st_mode & 0777) == 0644);
          OK(mkdir("theirs/dir", 0777));
          OK(symlink("x", "theirs/link"));
          OK(mknod("theirs/fifo", S_IFIFO | 0600, 0));
          CHECK(statOf("theirs/dir").st_uid == 1000 && statOf("theirs/link").st_uid == 1000);
          FAILS(chown("theirs/file", 0, 0), EPERM);
          FAILS(chmod("private", 0777), EPERM);
          put("setgid/file", "x");
          OK(mkdir("setgid/dir", 0755));
          CHECK(statOf("setgid/file").st_gid == 50 && statOf("setgid/dir").st_gid == 50);
          CHECK((statOf("setgid/dir").st_mode & 07777) == 02755);
          const int fd = opened("program", O_WRONLY);
          CHECK(write(fd, "y", 1) == 1);
          close(fd);
          return 0;
        }) == 0);
  CHECK((statOf("program").st_mode & 07777) == 0777);
  put("program", "z");
  OK(chmod("program", 06777));
  const int fd = opened("program", O_WRONLY);
  CHECK(write(fd, "y", 1) == 1);
  close(fd);
  CHECK((statOf("program").st_mode & 07777) == 06777);
}

void specialFiles() {
  OK(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
  CHECK(statOf("null").st_rdev == makedev(1, 3));
  CHECK(get("null").empty());
  put("null", "swallowed");
  OK(mkfifo("fifo", 0600));
  const int both = opened("fifo", O_RDWR);
  CHECK(write(both, "x", 1) == 1);
  char byte;
  CHECK(read(both, &byte, 1) == 1 && byte == 'x');
  close(both);
  const int listener = static_cast<int>(OK(socket(AF_UNIX, SOCK_STREAM, 0)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, "socket");
  OK(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address));
  OK(listen(listener, 1));
  const int client = static_cast<int>(OK(socket(AF_UNIX, SOCK_STREAM, 0)));
  OK(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address));
  close(client);
  close(listener);
}

void sparseFiles() {
  const int fd = opened("sparse", O_RDWR | O_CREAT);
  OK(ftruncate(fd, 100 << 20));
  CHECK(pwrite(fd, "data", 4, 50 << 20) == 4);
  OK(fsync(fd));
  CHECK(statOf("sparse").st_blocks < 1000);
  const off_t data = OK(lseek(fd, 0, SEEK_DATA));
  CHECK(data <= 50 << 20 && data >= (50 << 20) - (1 << 20));
  CHECK(lseek(fd, 0, SEEK_HOLE) == 0);
  OK(fallocate(fd, 0, 100 << 20, 4096));
  CHECK(statOf("sparse").st_size == (100 << 20) + 4096);
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 50 << 20, 4096) == 0) {
    char at[4];
    CHECK(pread(fd, at, 4, 50 << 20) == 4 && memcmp(at, "\0\0\0\0", 4) == 0);
  }
  const int to = opened("copied", O_RDWR | O_CREAT);
  off_t from = 100 << 20;
  CHECK(pwrite(fd, "copy me", 7, from) == 7);
  const ssize_t copied = copy_file_range(fd, &from, to, nullptr, 7, 0);
  CHECK(copied == 7 && get("copied") == "copy me");
  close(to);
  close(fd);
}

void temporaryFile() {
  const int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EOPNOTSUPP) return;
  OK(fd);
  CHECK(write(fd, "tmp", 3) == 3);
  OK(linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
  close(fd);
  CHECK(get("named") == "tmp");
}

void extendedAttributes() {
  put("xattr", "x");
  if (setxattr("xattr", "user.test", "value", 5, 0) != 0) {
    CHECK(errno == EOPNOTSUPP);
    return;
  }
  char value[100];
  CHECK(getxattr("xattr", "user.test", value, sizeof value) == 5 && memcmp(value, "value", 5) == 0);
  FAILS(getxattr("xattr", "user.none", value, sizeof value), ENODATA);
  CHECK(std::string(value, static_cast<size_t>(OK(listxattr("xattr", value, sizeof value))))
            .find("user.test") != std::string::npos);
  OK(removexattr("xattr", "user.test"));
  FAILS(removexattr("xattr", "user.test"), ENODATA);
}

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

void programs(const char* self) {
  put("exercise", get(self));
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

int failures = 0;

template <typename Body>
void run(const char* name, Body&& body) {
  try {
    body();
    printf("ok %s\n", name);
  } catch (const std::exception& error) {
    printf("not ok %s: %s\n", name, error.what());
    failures++;
  }
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "--exit") == 0) return atoi(argv[2]);
  if (argc != 2 || chdir(argv[1]) != 0) {
    fprintf(stderr, "usage: fs-exercise FOLDER\n");
    return 2;
  }
  umask(022);
  run("file content", fileContent);
  run("append", append);
  run("unlinked while open", unlinkedWhileOpen);
  run("shared mapping", sharedMapping);
  run("names and links", namesAndLinks);
  run("many entries", manyEntries);
  run("attributes", attributes);
  run("other users", otherUsers);
  run("special files", specialFiles);
  run("sparse files", sparseFiles);
  run("temporary file", temporaryFile);
  run("extended attributes", extendedAttributes);
  run("locks", locks);
  run("programs", [&] { programs("/proc/self/exe"); });
  run("many processes", manyProcesses);
  return failures == 0 ? 0 : 1;
}
