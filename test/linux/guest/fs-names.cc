// Names: links, renaming, large folders, files that are none.
#include <dirent.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <set>

#include "fs-exercise.h"

namespace {

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

}  // namespace

const std::vector<Case> kNameCases = {
    {"names and links", namesAndLinks},
    {"many entries", manyEntries},
    {"special files", specialFiles},
};
