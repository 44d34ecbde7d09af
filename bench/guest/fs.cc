// The shared folder, tag `bench`. The host has put folders list-0, list-1, ... of BENCH_ENTRIES empty files
// there, one for each batch, so that the guest has never seen what it lists.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <string>

#include "measure.h"

namespace bench {
namespace {

constexpr size_t kSmall = 4096;

std::string path(const char* kind, unsigned batch, uint64_t number) {
  return std::string("/share/made/") + kind + std::to_string(batch) + "-" + std::to_string(number);
}

// What the guest remembers of files' content, out of its memory; their names and attributes stay.
void dropPages() {
  const int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "1", 1) != 1) die("drop_caches");
  close(fd);
}

void waitSeconds(double seconds) {
  timespec time = {static_cast<time_t>(seconds),
                   static_cast<long>((seconds - static_cast<long>(seconds)) * 1e9)};
  nanosleep(&time, nullptr);
}

void smallFiles(char* memory) {
  const uint64_t count = operations(100);
  const auto each = [&](const char* kind, unsigned batch, const auto& work) {
    for (uint64_t i = 0; i < count; i++) work(path(kind, batch, i).c_str());
  };
  measure("fs-small-create-write", count, [&](unsigned batch) {
    each("f", batch, [&](const char* name) {
      const int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (fd < 0 || write(fd, memory, kSmall) != static_cast<ssize_t>(kSmall) || close(fd) != 0)
        die("create and write");
    });
  });
  dropPages();
  measure("fs-small-open-read", count, [&](unsigned batch) {
    each("f", batch, [&](const char* name) {
      const int fd = open(name, O_RDONLY | O_CLOEXEC);
      if (fd < 0 || read(fd, memory, kSmall) != static_cast<ssize_t>(kSmall) || close(fd) != 0)
        die("open and read");
    });
  });
  struct stat status;
  const auto statAll = [&](const char* kind, unsigned batch, int error) {
    each(kind, batch, [&](const char* name) {
      if ((stat(name, &status) == 0 ? 0 : errno) != error) die("stat");
    });
  };
  // Longer than the second for which a cache of the usual kind trusts what it knows.
  waitSeconds(1.5);
  measure("fs-small-stat-old", count, [&](unsigned batch) { statAll("f", batch, 0); });
  measure("fs-small-stat-known", count, [&](unsigned) { statAll("f", 0, 0); });
  measure("fs-small-stat-absent", count, [&](unsigned batch) { statAll("absent", batch, ENOENT); });
  measure("fs-small-unlink", count, [&](unsigned batch) {
    each("f", batch, [&](const char* name) {
      if (unlink(name) != 0) die("unlink");
    });
  });
}

void list() {
  const uint64_t entries = parameter("BENCH_ENTRIES", 0);
  if (entries == 0) return;
  measure("fs-list-entry", entries, [&](unsigned batch) {
    DIR* folder = opendir(("/share/list-" + std::to_string(batch)).c_str());
    if (folder == nullptr) die("opendir");
    uint64_t seen = 0;
    while (readdir(folder) != nullptr) seen++;
    closedir(folder);
    if (seen != entries + 2) die("entries of a folder");
  });
}

void largeFile(char* memory) {
  const uint64_t mebibytes = operations(16);
  const char* name = "/share/made/large";
  measure("fs-mib-write", mebibytes, [&](unsigned) {
    const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) die("open of a large file");
    for (uint64_t i = 0; i < mebibytes; i++) {
      if (write(fd, memory, kMiB) != static_cast<ssize_t>(kMiB)) die("write of a MiB");
    }
    if (close(fd) != 0) die("close of a large file");
  });
  const auto readAll = [&](unsigned) {
    const int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("open of a large file");
    for (uint64_t i = 0; i < mebibytes; i++) {
      if (read(fd, memory, kMiB) != static_cast<ssize_t>(kMiB)) die("read of a MiB");
    }
    close(fd);
  };
  measure("fs-mib-read", mebibytes, readAll, dropPages);
}

}  // namespace

void fs() {
  mkdir("/share", 0755);
  if (mount("bench", "/share", "virtiofs", 0, nullptr) != 0) die("mount of the share");
  if (mkdir("/share/made", 0755) != 0) die("mkdir");
  char* memory = buffer(kMiB);
  if (wanted("fs-small")) smallFiles(memory);
  if (wanted("fs-list")) list();
  if (wanted("fs-mib")) largeFile(memory);
  umount("/share");
}

}  // namespace bench
