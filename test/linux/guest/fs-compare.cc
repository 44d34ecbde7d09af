// Says how a file system answers: each call on each kind of file, by each user, with what is there
// afterwards. The answers of any two file systems that do as Linux says are the same, line by line.
#include <grp.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <functional>

#include "fs-exercise.h"

namespace {

struct Call {
  const char* name;
  std::function<long()> body;
};

/// A result, or the error's name.
std::string answer(long result) { return result >= 0 ? std::to_string(result) : strerrorname_np(errno); }

/// A line. The answers of a list in braces are evaluated one after the other.
void say(const std::string& call, std::initializer_list<std::string> answers) {
  printf("%s:", call.c_str());
  for (const std::string& one : answers) printf(" %s,", one.c_str());
  printf("\n");
  fflush(stdout);
}

/// What is at a name: its type, mode, owner, links and, of a file or link, its size.
std::string at(const char* name) {
  struct stat info;
  if (lstat(name, &info) != 0) return strerrorname_np(errno);
  const char type = "?pc?d?b?-?l?s???"[(info.st_mode & S_IFMT) >> 12];
  char text[100];
  snprintf(text, sizeof text, "%c%o %u:%u %lu", type, info.st_mode & 07777, info.st_uid, info.st_gid,
           info.st_nlink);
  return type == '-' || type == 'l' ? std::string(text) + " " + std::to_string(info.st_size) : text;
}

/// The result, with the descriptor closed.
long then(long result, int fd) {
  close(fd);
  return result;
}
/// Opens and closes.
long tryOpen(const char* path, int flags, mode_t mode = 0600) {
  const int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC, mode);
  return fd < 0 ? -1 : then(0, fd);
}

const std::vector<std::string> kKinds = {"none",     "file", "folder", "full",   "link",
                                         "dangling", "loop", "pipe",   "socket", "device"};

void make(const std::string& kind, const char* name) {
  if (kind == "file") put(name, "content");
  if (kind == "folder" || kind == "full") OK(mkdir(name, 0755));
  if (kind == "full") put((std::string(name) + "/inside").c_str(), "");
  if (kind == "link") put("target", "target");
  if (kind == "link") OK(symlink("target", name));
  if (kind == "dangling") OK(symlink("nowhere", name));
  if (kind == "loop") OK(symlink(name, name));
  if (kind == "pipe") OK(mkfifo(name, 0644));
  if (kind == "device") OK(mknod(name, S_IFCHR | 0666, makedev(1, 3)));
  if (kind == "socket") {
    const int fd = static_cast<int>(OK(socket(AF_UNIX, SOCK_STREAM, 0)));
    sockaddr_un address{AF_UNIX, {}};
    strncpy(address.sun_path, name, sizeof address.sun_path - 1);
    OK(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address));
    close(fd);
  }
}

/// Runs `body` in a new folder that is the current one meanwhile.
void inNewFolder(const std::function<void()>& body) {
  static int count = 0;
  OK(mkdir(("f" + std::to_string(++count)).c_str(), 0755));
  OK(chdir(("f" + std::to_string(count)).c_str()));
  body();
  OK(chdir(".."));
}

void renames() {
  const std::vector<std::string> kinds = {"none", "file", "folder", "full", "link", "pipe"};
  for (const unsigned flags : {0U, unsigned{RENAME_NOREPLACE}, unsigned{RENAME_EXCHANGE}}) {
    for (const std::string& from : kinds) {
      for (const std::string& to : kinds) {
        inNewFolder([&] {
          make(from, "a");
          make(to, "b");
          say("rename " + std::to_string(flags) + " " + from + " " + to,
              {answer(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", flags)), at("a"), at("b")});
        });
      }
    }
  }
  inNewFolder([] {
    put("a", "a");
    OK(link("a", "b"));
    OK(mkdir("d", 0755));
    say("rename to another link of the file", {answer(rename("a", "b")), at("a")});
    say("rename a folder into itself", {answer(rename("d", "d/e"))});
    say("rename .", {answer(rename("d/.", "e"))});
    say("rename with a slash", {answer(rename("a", "c/")), answer(rename("d/", "e/"))});
    say("rename, exclusive flags",
        {answer(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE))});
    const std::string longest(255, 'n');
    say("rename to long names", {answer(rename("a", (longest + "n").c_str())),
                                 answer(rename("a", longest.c_str())), at(longest.c_str())});
    say("any bytes", {answer(mkdir("\xff\x01 \n", 0700)), at("\xff\x01 \n")});
  });
}

void opens() {
  const std::pair<const char*, int> ways[] = {{"read", O_RDONLY},
                                              {"write", O_WRONLY | O_TRUNC},
                                              {"create", O_RDWR | O_CREAT},
                                              {"exclusive", O_WRONLY | O_CREAT | O_EXCL},
                                              {"folder", O_RDONLY | O_DIRECTORY},
                                              {"nofollow", O_RDWR | O_NOFOLLOW},
                                              {"append", O_WRONLY | O_APPEND},
                                              {"path", O_PATH | O_NOFOLLOW},
                                              {"unnamed", O_TMPFILE | O_RDWR}};
  for (const std::string& kind : kKinds) {
    for (const auto& [name, flags] : ways) {
      inNewFolder([&, name = name, flags = flags] {
        make(kind, "x");
        say(std::string("open ") + name + " " + kind, {answer(tryOpen("x", flags, 0642)), at("x")});
      });
    }
  }
}

void onEachKind() {
  const Call calls[] = {
      {"unlink", [] { return unlink("x"); }},
      {"rmdir", [] { return rmdir("x"); }},
      {"link", [] { return link("x", "y"); }},
      {"link followed", [] { return linkat(AT_FDCWD, "x", AT_FDCWD, "y", AT_SYMLINK_FOLLOW); }},
      {"symlink over", [] { return symlink("y", "x"); }},
      {"mkdir over", [] { return mkdir("x", 0700); }},
      {"mknod over", [] { return mknod("x", S_IFREG | 0600, 0); }},
      {"mkdir below", [] { return mkdir("x/y", 0700); }},
      {"unlink with a slash", [] { return unlink("x/"); }},
      {"truncate", [] { return truncate("x", 3); }},
      {"chmod", [] { return chmod("x", 0111); }},
      {"lchown", [] { return lchown("x", 5, 6); }},
      {"readlink", [] { return readlink("x", std::string(300, ' ').data(), 300); }},
      {"set attribute", [] { return lsetxattr("x", "trusted.t", "v", 1, 0); }},
  };
  for (const std::string& kind : kKinds) {
    for (const Call& call : calls) {
      inNewFolder([&] {
        make(kind, "x");
        say(std::string(call.name) + " " + kind, {answer(call.body()), at("x"), at("y")});
      });
    }
  }
}

long mapAndWrite() {
  const int fd = open("x", O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  auto* bytes = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  bytes[0] = 'z';
  OK(msync(bytes, 4096, MS_SYNC));
  OK(munmap(bytes, 4096));
  return then(0, fd);
}

/// Calls as a user, on a file of user 1000 and group 1001 with the set-ID bits, in a folder that all may
/// write.
void asUser(const char* who, uid_t uid, gid_t gid, const std::vector<gid_t>& groups, bool sticky) {
  const timespec times[2] = {{1, 2}, {3, 4}};
  const auto writer = [](const std::function<long(int)>& body) {
    const int fd = open("x", O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -1 : then(body(fd), fd);
  };
  const Call calls[] = {
      {"chmod", [] { return chmod("x", 0700); }},
      {"chmod set-group-ID", [] { return chmod("x", 02755); }},
      {"chown away", [] { return chown("x", 3000, -1); }},
      {"chgrp to 1002", [] { return chown("x", -1, 1002); }},
      {"touch", [] { return utimensat(AT_FDCWD, "x", nullptr, 0); }},
      {"set times", [&] { return utimensat(AT_FDCWD, "x", times, 0); }},
      {"truncate", [] { return truncate("x", 2); }},
      {"write", [&] { return writer([](int fd) { return write(fd, "y", 1); }); }},
      {"write nothing", [&] { return writer([](int fd) { return write(fd, "y", 0); }); }},
      {"map", mapAndWrite},
      {"unlink", [] { return unlink("x"); }},
      {"rename", [] { return rename("x", "y"); }},
      {"create", [] { return tryOpen("y", O_CREAT | O_RDWR, 06777); }},
      {"mkdir", [] { return mkdir("y", 02777); }},
      {"mknod", [] { return mknod("y", S_IFCHR | 0666, makedev(1, 3)); }},
      {"set attribute", [] { return setxattr("x", "trusted.t", "v", 1, 0); }},
      {"may read", [] { return access("x", R_OK); }},
      {"may write", [] { return access("x", W_OK); }},
  };
  for (const Call& call : calls) {
    inNewFolder([&] {
      put("x", "content");
      OK(chown("x", 1000, 1001));
      OK(chmod("x", 06775));
      OK(chown(".", 0, 1003));
      OK(chmod(".", sticky ? 01777 : 02777));
      child([&] {
        OK(setgroups(groups.size(), groups.data()));
        OK(setgid(gid));
        OK(setuid(uid));
        say(std::string(who) + (sticky ? " sticky " : " ") + call.name,
            {answer(call.body()), at("x"), at("y")});
        return 0;
      });
    });
  }
}

/// How a child ends that runs `body`, without a core file.
std::string ending(const std::function<void()>& body) {
  return std::to_string(child([&] {
    const rlimit none{};
    setrlimit(RLIMIT_CORE, &none);
    body();
    return 0;
  }));
}

void sizes() {
  put("c", std::string(10'000, 'c'));
  const int fd = opened("c", O_RDWR);
  char bytes[500] = "";
  say("read at the end", {answer(pread(fd, bytes, 100, 9'990)), answer(pread(fd, bytes, 100, 10'001)),
                          answer(pread(fd, bytes, 1, -1))});
  say("seek", {answer(lseek(fd, -1, SEEK_SET)), answer(lseek(fd, 5, SEEK_END)),
               answer(lseek(fd, 20'000, SEEK_DATA)), answer(lseek(fd, 0, SEEK_HOLE))});
  for (const int mode : {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE}) {
    for (const off_t from : {0, 9'000, 50'000}) {
      say("fallocate " + std::to_string(mode) + " " + std::to_string(from),
          {answer(fallocate(fd, mode, from, 4'096)), at("c")});
    }
  }
  say("fallocate nothing", {answer(fallocate(fd, 0, 0, 0)), answer(fallocate(fd, 0, -1, 5))});
  const int log = opened("c", O_WRONLY | O_APPEND);
  const int reader = opened("c", O_RDONLY);
  const auto copy = [](int from, off_t in, int to, off_t out, size_t count) {
    return answer(copy_file_range(from, &in, to, &out, count, 0));
  };
  say("copy",
      {copy(fd, 100, log, 0, 10), copy(fd, 100, fd, 200, 500), copy(fd, 100, fd, 5'000, 500),
       copy(fd, 1'000'000, fd, 0, 500), copy(fd, 0, fd, 60'000, 500), copy(fd, 0, reader, 0, 1), at("c")});
  iovec piece{bytes, 10};
  say("append",
      {answer(pwrite(log, "ab", 2, 0)), at("c"), answer(pwritev2(fd, &piece, 1, 0, RWF_APPEND)), at("c")});
  say("wrong way", {answer(write(reader, "x", 1)), answer(read(log, bytes, 1)), answer(ftruncate(reader, 1)),
                    answer(ftruncate(fd, -1))});
  say("truncate",
      {answer(ftruncate(fd, 3)), at("c"), answer(truncate("c", 9'000)), at("c"), answer(ftruncate(fd, 3))});
  say("map", {ending([&] {
                auto* map = static_cast<volatile char*>(mmap(nullptr, 8'192, PROT_READ, MAP_SHARED, fd, 0));
                if (map[100] == 0) (void)map[5'000];
              }),
              ending([&] {
                OK(ftruncate(fd, 8'192));
                auto* map = static_cast<volatile char*>(mmap(nullptr, 8'192, PROT_READ, MAP_SHARED, fd, 0));
                (void)map[5'000];
                OK(ftruncate(fd, 10));
                (void)map[5'000];
              }),
              ending([&] {
                auto* map = static_cast<char*>(mmap(nullptr, 4'096, PROT_WRITE, MAP_PRIVATE, fd, 0));
                map[0] = '!';
                CHECK(get("c")[0] != '!');
              }),
              ending([&] { OK(mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED ? -1 : 0); }),
              at("c")});
  say("size limit", {ending([&] {
                       const rlimit limit{1'000, 1'000};
                       setrlimit(RLIMIT_FSIZE, &limit);
                       signal(SIGXFSZ, SIG_IGN);
                       say("beyond it", {answer(pwrite(fd, bytes, 500, 900)),
                                         answer(pwrite(fd, bytes, 5, 1'000)), answer(ftruncate(fd, 2'000))});
                     }),
                     at("c")});
  say("read a folder", {answer(read(opened(".", O_RDONLY), bytes, 1))});
}

void times() {
  const auto writing = [](size_t count) {
    const int fd = open("d/x", O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -1 : then(write(fd, "yyyy", count), fd);
  };
  const Call calls[] = {
      {"create", [] { return tryOpen("d/y", O_CREAT | O_WRONLY); }},
      {"open", [] { return tryOpen("d/x", O_WRONLY); }},
      {"write", [&] { return writing(1); }},
      {"write nothing", [&] { return writing(0); }},
      {"truncate to the same", [] { return truncate("d/x", 1); }},
      {"open truncating", [] { return tryOpen("d/x", O_WRONLY | O_TRUNC); }},
      {"chmod", [] { return chmod("d/x", 0600); }},
      {"link", [] { return link("d/x", "d/y"); }},
      {"unlink", [] { return unlink("d/x"); }},
      {"rename", [] { return rename("d/x", "d/y"); }},
      {"rename folder", [] { return rename("d/e", "e"); }},
      {"mkdir", [] { return mkdir("d/y", 0700); }},
      {"rmdir", [] { return rmdir("d/e"); }},
      {"symlink", [] { return symlink("x", "d/y"); }},
  };
  const auto changed = [](const char* path) -> std::string {
    struct stat info;
    return lstat(path, &info) != 0 ? "none" : info.st_mtim.tv_sec == 1'000 ? "old" : "new";
  };
  for (const Call& call : calls) {
    inNewFolder([&] {
      OK(mkdir("d", 0755));
      OK(mkdir("d/e", 0755));
      put("d/x", "x");
      const timespec old[2] = {{1'000, 0}, {1'000, 0}};
      for (const char* path : {"d/x", "d/e", "d"}) OK(utimensat(AT_FDCWD, path, old, 0));
      say(std::string("time of ") + call.name,
          {answer(call.body()), changed("d"), changed("d/x"), changed("d/y")});
    });
  }
}

void locks() {
  const auto lock = [](int fd, int command, short type, off_t start, off_t length) {
    struct flock range {};
    range.l_type = type;
    range.l_start = start;
    range.l_len = length;
    const std::string result = answer(fcntl(fd, command, &range));
    return command == F_GETLK ? result + " type " + std::to_string(range.l_type) : result;
  };
  put("l", "0123456789");
  const int one = opened("l", O_RDWR);
  const int two = opened("l", O_RDWR);
  say("POSIX lock", {lock(one, F_SETLK, F_WRLCK, 0, 5), lock(two, F_SETLK, F_RDLCK, 2, 2)});
  const auto other = [&](const char* when) {
    child([&] {
      const int fd = opened("l", O_RDWR);
      say(std::string("another process, ") + when,
          {lock(fd, F_GETLK, F_WRLCK, 0, 1), lock(fd, F_GETLK, F_RDLCK, 2, 1),
           lock(fd, F_GETLK, F_WRLCK, 2, 1), lock(fd, F_SETLK, F_WRLCK, 6, 0)});
      return 0;
    });
  };
  other("while locked");
  close(two);
  other("after a close");
  const int three = opened("l", O_RDWR);
  say("of the open file", {lock(one, F_OFD_SETLK, F_WRLCK, 0, 5), lock(three, F_OFD_SETLK, F_RDLCK, 0, 1)});
  const auto nonBlocking = [](int fd, int how) { return answer(flock(fd, how | LOCK_NB)); };
  say("flock", {nonBlocking(one, LOCK_SH), nonBlocking(three, LOCK_SH), nonBlocking(one, LOCK_EX),
                nonBlocking(three, LOCK_UN), nonBlocking(one, LOCK_EX)});
}

}  // namespace

void compare() {
  for (const auto& section : {renames, opens, onEachKind, sizes, times, locks}) inNewFolder(section);
  for (const bool sticky : {false, true}) {
    inNewFolder([&] {
      asUser("root", 0, 0, {0}, sticky);
      asUser("owner", 1000, 2000, {1002}, sticky);
      asUser("member", 2000, 1001, {}, sticky);
      asUser("stranger", 2000, 2000, {}, sticky);
    });
  }
}
