// What files hold: reading, writing, mapping, holes, files without a name.
#include <sys/mman.h>

#include "fs-exercise.h"

namespace {

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

}  // namespace

const std::vector<Case> kContentCases = {
    {"file content", fileContent},
    {"append", append},
    {"unlinked while open", unlinkedWhileOpen},
    {"shared mapping", sharedMapping},
    {"sparse files", sparseFiles},
    {"temporary file", temporaryFile},
};
