// Attributes, and who may do what.
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#include "fs-exercise.h"

namespace {

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

}  // namespace

const std::vector<Case> kRightsCases = {
    {"attributes", attributes},
    {"other users", otherUsers},
    {"extended attributes", extendedAttributes},
};
