// The FUSE server by itself: open files and their attributes.

#include <doctest/doctest.h>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {
constexpr uint64_t kRoot = FuseClient::kRoot;
bool isRoot() { return geteuid() == 0; }
}  // namespace

TEST_CASE("fuse: creating, reading and writing files") {
  TempFolder folder;
  FuseClient client({.directory = folder.share()});

  const FuseReply created = client.create(kRoot, "a", O_RDWR | O_EXCL, 0640);
  REQUIRE(created.error == 0);
  const uint64_t node = created.as<fuse_entry_out>().nodeid;
  const uint64_t fh = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  CHECK((created.as<fuse_entry_out>().attr.mode & 07777) == 0640);
  CHECK(client.create(kRoot, "a", O_RDWR | O_EXCL).error == EEXIST);

  CHECK(client.write(node, fh, 0, "hello world").as<fuse_write_out>().size == 11);
  CHECK(readFile(folder / "a") == "hello world");
  CHECK(client.read(node, fh, 6, 100).payload == "world");
  CHECK(client.read(node, fh, 11, 100).payload.empty());
  CHECK(client.read(node, fh, 1 << 20, 1).payload.empty());
  CHECK(client.read(node, fh, ~uint64_t{0}, 1).error == EINVAL);

  // Sparse: a write beyond the end.
  CHECK(client.write(node, fh, 1 << 20, "x").error == 0);
  CHECK(client.attributes(node).size == (1 << 20) + 1);
  CHECK(client.attributes(node).blocks < 64);
  auto seek = [&](uint64_t offset, uint32_t whence) {
    return client.call(FUSE_LSEEK, node, bytesOf(fuse_lseek_in{fh, offset, whence, 0}));
  };
  CHECK(seek(0, SEEK_HOLE).as<fuse_lseek_out>().offset <= 1 << 20);
  CHECK(seek(1 << 19, SEEK_DATA).as<fuse_lseek_out>().offset > 1 << 19);
  CHECK(seek((1 << 20) + 1, SEEK_DATA).error == ENXIO);
  CHECK(seek(0, SEEK_SET).error == EINVAL);

  // Opening without O_EXCL what is there, and truncating it.
  const FuseReply again = client.create(kRoot, "a", O_RDWR | O_TRUNC);
  CHECK(again.as<fuse_entry_out>().nodeid == node);
  CHECK(again.as<fuse_entry_out>().attr.size == 0);
  CHECK(client.release(node, again.as<fuse_open_out>(sizeof(fuse_entry_out)).fh).error == 0);

  // Unlinked while open.
  CHECK(client.write(node, fh, 0, "still here").error == 0);
  CHECK(client.unlink(kRoot, "a").error == 0);
  CHECK(client.lookup(kRoot, "a").error == ENOENT);
  CHECK(client.read(node, fh, 0, 100).payload == "still here");
  CHECK(client.attributes(node).nlink == 0);
  CHECK(client.opened(node, O_RDONLY) != 0);
  CHECK(client.release(node, fh).error == 0);
  CHECK(client.release(node, fh).error == EBADF);
  CHECK(client.read(node, fh, 0, 1).error == EBADF);
}

TEST_CASE("fuse: O_APPEND appends, but pages that are written back stay in their place") {
  TempFolder folder;
  writeFile(folder / "log", "one ");
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "log");
  const uint64_t fh = client.opened(node, O_WRONLY | O_APPEND);
  CHECK(client.write(node, fh, 0, "two ", O_WRONLY | O_APPEND).error == 0);
  std::ofstream(folder / "log", std::ios::app) << "three ";
  CHECK(client.write(node, fh, 8, "four", O_WRONLY | O_APPEND).error == 0);
  CHECK(readFile(folder / "log") == "one two three four");
  CHECK(client.write(node, fh, 0, "ONE", O_WRONLY | O_APPEND, FUSE_WRITE_CACHE).error == 0);
  CHECK(readFile(folder / "log") == "ONE two three four");
}

TEST_CASE("fuse: data is moved right however the memory is cut") {
  TempFolder folder;
  FuseClient client({.directory = folder.share()});
  std::string data;
  for (int i = 0; i < 5000; i++) {
    data += std::to_string(i);
  }
  writeFile(folder / "a", data);
  const uint64_t node = client.node(kRoot, "a");
  const uint64_t fh = client.opened(node, O_RDWR);
  for (const size_t piece : {1, 3, 7, 16, 17, 40, 4096}) {
    fuse_read_in in{};
    in.fh = fh;
    in.offset = 5;
    in.size = 6000;
    const auto read =
        client.sendRaw(client.header(FUSE_READ, node, sizeof in) + bytesOf(in), 16 + 6000, piece);
    CHECK((client.receive(*read).payload == data.substr(5, 6000)));

    data = data.substr(1) + data[0];
    fuse_write_in out{};
    out.fh = fh;
    out.offset = 0;
    out.size = static_cast<uint32_t>(data.size());
    const auto write = client.sendRaw(
        client.header(FUSE_WRITE, node, sizeof out + data.size()) + bytesOf(out) + data, 24, piece);
    CHECK(client.receive(*write).as<fuse_write_out>().size == data.size());
    CHECK((readFile(folder / "a") == data));
  }
}

TEST_CASE("fuse: SETATTR") {
  TempFolder folder;
  writeFile(folder / "a", "0123456789");
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  fuse_setattr_in in{};

  in.valid = FATTR_MODE;
  in.mode = S_IFREG | 04711;
  CHECK((client.setattr(node, in).as<fuse_attr_out>().attr.mode & 07777) == 04711);
  in = {};
  in.valid = FATTR_SIZE;
  in.size = 4;
  CHECK(client.setattr(node, in).as<fuse_attr_out>().attr.size == 4);
  CHECK(readFile(folder / "a") == "0123");
  in.size = ~uint64_t{0};
  CHECK(client.setattr(node, in).error == EFBIG);
  // Truncating through a file that was opened for writing works whatever its mode is now.
  const uint64_t fh = client.opened(node, O_WRONLY);
  in.valid = FATTR_SIZE | FATTR_FH;
  in.fh = fh;
  in.size = 8;
  CHECK(client.setattr(node, in).as<fuse_attr_out>().attr.size == 8);
  in.fh = fh + 77;
  CHECK(client.setattr(node, in).error == EBADF);

  in = {};
  in.valid = FATTR_ATIME | FATTR_MTIME;
  in.atime = 1000;
  in.atimensec = 5;
  in.mtime = static_cast<uint64_t>(-3);
  in.mtimensec = 999'999'999;
  auto attributes = client.setattr(node, in).as<fuse_attr_out>().attr;
  CHECK(attributes.atime == 1000);
  CHECK(attributes.atimensec == 5);
  CHECK(attributes.mtime == static_cast<uint64_t>(-3));
  in.mtimensec = 1'000'000'000;
  CHECK(client.setattr(node, in).error == EINVAL);
  in = {};
  in.valid = FATTR_MTIME | FATTR_MTIME_NOW;
  attributes = client.setattr(node, in).as<fuse_attr_out>().attr;
  CHECK(attributes.mtime > 1'000'000'000);
  CHECK(attributes.atime == 1000);

  CHECK(client.symlink(kRoot, "l", "a").error == 0);
  const uint64_t link = client.node(kRoot, "l");
  in = {};
  in.valid = FATTR_ATIME | FATTR_MTIME;
  in.mtime = 77;
  CHECK(client.setattr(link, in).as<fuse_attr_out>().attr.mtime == 77);
  CHECK(client.attributes(node).mtime != 77);
  in.valid = FATTR_MODE;
  CHECK(client.setattr(link, in).error == EOPNOTSUPP);
  in.valid = FATTR_SIZE;
  CHECK(client.setattr(link, in).error == EINVAL);
  CHECK(client.setattr(kRoot, in).error == EISDIR);

  if (isRoot()) {
    in = {};
    in.valid = FATTR_MODE;
    in.mode = 06711;
    client.setattr(node, in);
    in = {};
    in.valid = FATTR_UID | FATTR_GID;
    in.uid = 1234;
    in.gid = 4321;
    attributes = client.setattr(node, in).as<fuse_attr_out>().attr;
    CHECK(attributes.uid == 1234);
    CHECK(attributes.gid == 4321);
    CHECK((attributes.mode & 07777) == 0711);
    CHECK(client.setattr(link, in).as<fuse_attr_out>().attr.uid == 1234);
  }
}

TEST_CASE("fuse: writing takes set-user-ID and set-group-ID off where the guest says so") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  const uint64_t fh = client.opened(node, O_RDWR);
  const auto mode = [&] { return client.attributes(node).mode & 07777; };
  const auto setMode = [&](uint32_t value) {
    fuse_setattr_in in{};
    in.valid = FATTR_MODE;
    in.mode = value;
    REQUIRE(client.setattr(node, in).error == 0);
  };
  setMode(06755);
  CHECK(client.write(node, fh, 0, "y").error == 0);
  if (isRoot()) {
    CHECK(mode() == 06755);
  }
  setMode(06755);
  CHECK(client.write(node, fh, 0, "y", 0, FUSE_WRITE_KILL_SUIDGID).error == 0);
  CHECK(mode() == 0755);
  setMode(06745);
  CHECK(client.write(node, fh, 0, "y", 0, FUSE_WRITE_KILL_SUIDGID).error == 0);
  CHECK(mode() == 02745);
  setMode(06755);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE | FATTR_KILL_SUIDGID;
  CHECK(client.setattr(node, in).error == 0);
  CHECK(mode() == 0755);
  setMode(06755);
  CHECK(
      client.call(FUSE_OPEN, node, bytesOf(fuse_open_in{O_WRONLY | O_TRUNC, FUSE_OPEN_KILL_SUIDGID})).error ==
      0);
  CHECK(mode() == 0755);
}

TEST_CASE("fuse: what may take long is answered later") {
  TempFolder folder;
  writeFile(folder / "a", std::string(100'000, 'a'));
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  const uint64_t fh = client.opened(node, O_RDWR);
  const auto sync = client.send(FUSE_FSYNC, node, bytesOf(fuse_fsync_in{fh, FUSE_FSYNC_FDATASYNC, 0}));
  CHECK(sync->outcome.pending);
  CHECK(client.receive(*sync).error == 0);
  CHECK(client.call(FUSE_FSYNC, node, bytesOf(fuse_fsync_in{fh, 0, 0})).error == 0);
  CHECK(client.call(FUSE_SYNCFS, kRoot, bytesOf(fuse_syncfs_in{})).error == 0);
  CHECK(client.call(FUSE_SYNCFS, node, bytesOf(fuse_syncfs_in{})).error == ENOTDIR);

  const auto fallocate = [&](uint64_t offset, uint64_t length, uint32_t mode) {
    return client.call(FUSE_FALLOCATE, node, bytesOf(fuse_fallocate_in{fh, offset, length, mode, 0})).error;
  };
  CHECK(fallocate(0, 200'000, 0) == 0);
  CHECK(client.attributes(node).size == 200'000);
  CHECK(fallocate(0, 300'000, FALLOC_FL_KEEP_SIZE) == 0);
  CHECK(client.attributes(node).size == 200'000);
  CHECK(fallocate(0, 4096, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) == 0);
  CHECK(client.read(node, fh, 4095, 2).payload == std::string("\0a", 2));
  CHECK(fallocate(0, 0, 0) == EINVAL);
  CHECK(fallocate(~uint64_t{0}, 1, 0) == EINVAL);
  CHECK(fallocate(0, 1, 0x8000) == EOPNOTSUPP);

  CHECK(client.create(kRoot, "b").error == 0);
  const uint64_t other = client.node(kRoot, "b");
  const uint64_t to = client.opened(other, O_RDWR);
  const auto copy = [&](uint64_t from, uint64_t into, uint64_t length, uint64_t flags = 0) {
    return client.call(FUSE_COPY_FILE_RANGE, node,
                       bytesOf(fuse_copy_file_range_in{from, 4090, other, into, 0, length, flags}));
  };
  CHECK(copy(fh, to, 10).as<fuse_write_out>().size == 10);
  CHECK(readFile(folder / "b") == std::string(6, '\0') + "aaaa");
  CHECK(copy(fh, to + 9, 10).error == EBADF);
  CHECK(copy(fh, to, 10, 1).error == EINVAL);

  CHECK(client.call(FUSE_FLUSH, node, bytesOf(fuse_flush_in{fh, 0, 0, 0})).error == ENOSYS);
  CHECK(client.call(FUSE_IOCTL, node, bytesOf(fuse_ioctl_in{})).error == ENOTTY);
  CHECK(client.call(FUSE_POLL, node, bytesOf(fuse_poll_in{})).error == ENOSYS);
  CHECK(client.call(FUSE_BMAP, node, bytesOf(fuse_bmap_in{})).error == ENOSYS);
  CHECK(client.call(FUSE_GETLK, node, bytesOf(fuse_lk_in{})).error == ENOSYS);
}

TEST_CASE("fuse: detaching with work under way leaves nothing behind") {
  const size_t before = openDescriptors();
  {
    TempFolder folder;
    writeFile(folder / "a", "a");
    FuseClient client({.directory = folder.share(), .hostLocks = true});
    const uint64_t node = client.node(kRoot, "a");
    const uint64_t fh = client.opened(node, O_RDWR);
    std::vector<std::unique_ptr<FuseClient::Sent>> sent;
    for (int i = 0; i < 50; i++) {
      sent.push_back(client.send(FUSE_FSYNC, node, bytesOf(fuse_fsync_in{fh, 0, 0})));
    }
    CHECK(client.lock(FUSE_SETLK, node, fh, 1, F_WRLCK, 0, 10).error == 0);
    sent.push_back(client.sendLock(FUSE_SETLKW, node, fh, 2, F_WRLCK, 0, 10));
    CHECK(sent.back()->outcome.pending);
  }
  CHECK(openDescriptors() == before);
}
