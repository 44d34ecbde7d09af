// File locks that are taken on the host.

#include <doctest/doctest.h>
#include <sys/file.h>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {

constexpr uint64_t kRoot = FuseClient::kRoot;
constexpr uint64_t kEnd = INT64_MAX;

/// A lock of the host's own on a file.
class HostLock {
 public:
  explicit HostLock(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
  bool lock(short type, off_t start, off_t length) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;
    return fcntl(fd_.get(), F_OFD_SETLK, &lock) == 0;
  }
  bool whole(int operation) { return flock(fd_.get(), operation | LOCK_NB) == 0; }

 private:
  Fd fd_;
};

struct Fixture {
  Fixture() : client({.directory = folder.share(), .hostLocks = true}) {
    writeFile(folder / "a", "0123456789");
    node = client.node(kRoot, "a");
    fh = client.opened(node, O_RDWR);
  }
  int set(uint64_t owner, uint32_t type, uint64_t start, uint64_t end, uint32_t flags = 0,
          uint64_t file = 0) {
    return client.lock(FUSE_SETLK, node, file != 0 ? file : fh, owner, type, start, end, flags).error;
  }
  std::unique_ptr<FuseClient::Sent> wait(uint64_t owner, uint32_t type, uint64_t start, uint64_t end,
                                         uint32_t flags = 0, uint64_t file = 0) {
    return client.sendLock(FUSE_SETLKW, node, file != 0 ? file : fh, owner, type, start, end, flags);
  }
  fuse_file_lock get(uint64_t owner, uint32_t type, uint64_t start, uint64_t end) {
    return client.lock(FUSE_GETLK, node, fh, owner, type, start, end).as<fuse_lk_out>().lk;
  }

  TempFolder folder;
  FuseClient client;
  uint64_t node = 0;
  uint64_t fh = 0;
};

}  // namespace

TEST_CASE("fuse locks: POSIX locks by owner, seen by the host") {
  Fixture f;
  HostLock host(f.folder / "a");
  CHECK(f.set(1, F_WRLCK, 0, 4) == 0);
  CHECK(f.set(1, F_RDLCK, 0, 4) == 0);
  CHECK(f.set(1, F_WRLCK, 0, 4) == 0);
  CHECK(f.set(2, F_RDLCK, 4, 8) == EAGAIN);
  CHECK(f.set(2, F_WRLCK, 5, kEnd) == 0);
  CHECK_FALSE(host.lock(F_RDLCK, 0, 1));
  CHECK_FALSE(host.lock(F_RDLCK, 100, 1));

  fuse_file_lock found = f.get(2, F_WRLCK, 0, 3);
  CHECK(found.type == F_WRLCK);
  CHECK(found.start == 0);
  CHECK(found.end == 4);
  CHECK(found.pid == 0);
  found = f.get(1, F_WRLCK, 9, 9);
  CHECK(found.start == 5);
  CHECK(found.end == kEnd);
  CHECK(f.get(1, F_WRLCK, 0, 4).type == F_UNLCK);

  CHECK(f.set(1, F_UNLCK, 0, kEnd) == 0);
  CHECK(host.lock(F_WRLCK, 0, 5));
  CHECK(f.set(1, F_RDLCK, 0, 0) == EAGAIN);
  CHECK(host.lock(F_UNLCK, 0, 5));

  // The guest closes one of the owner's descriptors: all its locks on the file go.
  CHECK(f.client.call(FUSE_FLUSH, f.node, bytesOf(fuse_flush_in{f.fh, 0, 0, 2})).error == 0);
  CHECK(host.lock(F_WRLCK, 0, 0));
}

TEST_CASE("fuse locks: waiting ends when the lock is given back, by whomever") {
  Fixture f;
  HostLock host(f.folder / "a");

  CHECK(f.set(1, F_WRLCK, 0, 4) == 0);
  const auto second = f.wait(2, F_WRLCK, 0, 4);
  const auto third = f.wait(3, F_RDLCK, 4, 4);
  CHECK(second->outcome.pending);
  CHECK_FALSE(f.client.done(*second));
  CHECK(f.set(1, F_UNLCK, 0, 4) == 0);
  CHECK(f.client.receive(*second).error == 0);
  CHECK_FALSE(f.client.done(*third));
  CHECK(f.client.call(FUSE_FLUSH, f.node, bytesOf(fuse_flush_in{f.fh, 0, 0, 2})).error == 0);
  CHECK(f.client.receive(*third).error == 0);
  CHECK(f.set(3, F_UNLCK, 0, kEnd) == 0);

  CHECK(host.lock(F_WRLCK, 0, 1));
  const auto fourth = f.wait(4, F_WRLCK, 0, 0);
  CHECK(fourth->outcome.pending);
  CHECK(host.lock(F_UNLCK, 0, 1));
  CHECK(f.client.receive(*fourth).error == 0);
  CHECK_FALSE(host.lock(F_WRLCK, 0, 1));
}

TEST_CASE("fuse locks: INTERRUPT ends a wait, and too many waits are refused") {
  Fixture f;
  CHECK(f.set(1, F_WRLCK, 0, 4) == 0);
  std::vector<std::unique_ptr<FuseClient::Sent>> waiting;
  for (uint64_t owner = 2; owner < 2 + 64; owner++) {
    waiting.push_back(f.wait(owner, F_WRLCK, 0, 4));
    CHECK(waiting.back()->outcome.pending);
  }
  CHECK(f.client.receive(*f.wait(100, F_WRLCK, 0, 4)).error == ENOLCK);
  f.client.call(FUSE_INTERRUPT, 0, bytesOf(fuse_interrupt_in{waiting[5]->unique}), 0);
  CHECK(f.client.receive(*waiting[5]).error == EINTR);
  CHECK_FALSE(f.client.done(*waiting[6]));
  f.client.call(FUSE_INTERRUPT, 0, bytesOf(fuse_interrupt_in{999'999}), 0);
  // The session's end ends them all.
  f.client.init();
  CHECK(f.client.receive(*waiting[6]).error == EINTR);
  CHECK(f.client.receive(*waiting[63]).error == EINTR);
}

TEST_CASE("fuse locks: flock() belongs to the open file") {
  Fixture f;
  HostLock host(f.folder / "a");
  const uint64_t other = f.client.opened(f.node, O_RDONLY);
  CHECK(f.set(0, F_WRLCK, 0, kEnd, FUSE_LK_FLOCK) == 0);
  CHECK_FALSE(host.whole(LOCK_SH));
  CHECK(f.set(0, F_RDLCK, 0, kEnd, FUSE_LK_FLOCK, other) == EAGAIN);
  const auto waiting = f.wait(0, F_RDLCK, 0, kEnd, FUSE_LK_FLOCK, other);
  CHECK(waiting->outcome.pending);
  CHECK(f.client.release(f.node, f.fh).error == 0);
  CHECK(f.client.receive(*waiting).error == 0);
  CHECK(host.whole(LOCK_SH));
  CHECK_FALSE(host.whole(LOCK_EX));
  CHECK(f.set(0, F_UNLCK, 0, kEnd, FUSE_LK_FLOCK, other) == 0);
  CHECK(host.whole(LOCK_EX));
}

TEST_CASE("fuse locks: bad requests") {
  Fixture f;
  CHECK(f.set(1, F_WRLCK, 5, 4) == EINVAL);
  CHECK(f.set(1, 77, 0, 4) == EINVAL);
  CHECK(f.set(1, F_WRLCK, 0, ~uint64_t{0}) == EINVAL);
  CHECK(f.client.lock(FUSE_SETLK, f.node, f.fh + 1, 1, F_WRLCK, 0, 1).error == EBADF);
  CHECK(f.client.lock(FUSE_GETLK, f.node, f.fh, 1, F_UNLCK, 0, 1).error == EINVAL);
  // Forgetting the file closes what its locks hold.
  const size_t before = openDescriptors();
  CHECK(f.set(1, F_WRLCK, 0, 1) == 0);
  CHECK(f.set(2, F_WRLCK, 3, 4) == 0);
  CHECK(openDescriptors() == before + 2);
  CHECK(f.client.release(f.node, f.fh).error == 0);
  f.client.forget(f.node);
  CHECK(openDescriptors() == before - 2);
}
