// What programs do all day: sparse files, renaming in place, folders of many entries, files that are shared
// with the host, on a disk and in memory.

#include <doctest/doctest.h>
#include <sys/xattr.h>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {

constexpr uint64_t kRoot = FuseClient::kRoot;

/// A file system in memory, where there is one: nothing on it waits for a disk.
std::filesystem::path inMemory() {
  const std::filesystem::path folder = "/dev/shm";
  return access(folder.c_str(), W_OK) == 0 ? folder : std::filesystem::temp_directory_path();
}

}  // namespace

TEST_CASE("fuse work: bytes come and go right, whether or not they wait for a disk") {
  for (const auto& where : {std::filesystem::temp_directory_path(), inMemory()}) {
    TempFolder folder(where);
    FuseClient client({.directory = folder.share()});
    const FuseReply created = client.create(kRoot, "a", O_RDWR);
    REQUIRE(created.error == 0);
    const uint64_t node = created.as<fuse_entry_out>().nodeid;
    const uint64_t fh = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
    std::string content(1 << 20, '\0');
    for (size_t i = 0; i < content.size(); i++) {
      content[i] = static_cast<char>(i * 13 + i / 4096);
    }
    // A large piece, then small ones across its edges; the end of the file inside a read.
    CHECK(client.write(node, fh, 0, content).as<fuse_write_out>().size == content.size());
    CHECK(client.write(node, fh, content.size() - 3, "abcdef").as<fuse_write_out>().size == 6);
    CHECK(client.write(node, fh, 4095, "xy").as<fuse_write_out>().size == 2);
    content.replace(content.size() - 3, 3, "abcdef");
    content.replace(4095, 2, "xy");
    CHECK((client.read(node, fh, 0, 1 << 20).payload == content.substr(0, 1 << 20)));
    CHECK((client.read(node, fh, 1 << 19, 1 << 20).payload == content.substr(1 << 19)));
    CHECK(client.read(node, fh, content.size(), 4096).payload.empty());
    CHECK(client.server().bytesWritten() == (1 << 20) + 8);
    CHECK((readFile(folder / "a") == content));
    // Every write of such a file ends on the disk.
    const uint64_t synchronous = client.opened(node, O_WRONLY | O_SYNC);
    CHECK(client.write(node, synchronous, 0, "sync").as<fuse_write_out>().size == 4);
    CHECK(readFile(folder / "a").substr(0, 4) == "sync");
    // What no descriptor can write is an error, not silence.
    const uint64_t reading = client.opened(node, O_RDONLY);
    CHECK(client.write(node, reading, 0, std::string(200'000, 'z')).error == EBADF);
    CHECK(client.write(node, reading, 0, "z").error == EBADF);
  }
}

TEST_CASE("fuse work: holes stay holes, and are found") {
  TempFolder folder(inMemory());
  FuseClient client({.directory = folder.share()});
  const FuseReply created = client.create(kRoot, "a", O_RDWR);
  const uint64_t node = created.as<fuse_entry_out>().nodeid;
  const uint64_t fh = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  CHECK(client.write(node, fh, 1 << 20, std::string(4096, 'x')).error == 0);
  const auto seek = [&](uint64_t offset, uint32_t whence) {
    const FuseReply reply = client.call(FUSE_LSEEK, node, bytesOf(fuse_lseek_in{fh, offset, whence, 0}));
    return reply.error != 0 ? -reply.error : static_cast<int64_t>(reply.as<fuse_lseek_out>().offset);
  };
  CHECK(seek(0, SEEK_DATA) == 1 << 20);
  CHECK(seek(0, SEEK_HOLE) == 0);
  CHECK(seek(1 << 20, SEEK_HOLE) == (1 << 20) + 4096);
  CHECK(seek(2 << 20, SEEK_DATA) == -ENXIO);
  const auto allocate = [&](uint64_t offset, uint64_t length, uint32_t mode) {
    return client.call(FUSE_FALLOCATE, node, bytesOf(fuse_fallocate_in{fh, offset, length, mode, 0})).error;
  };
  CHECK(allocate(0, 8192, 0) == 0);
  CHECK(allocate(4 << 20, 4096, 1) == 0);  // FALLOC_FL_KEEP_SIZE
  CHECK(client.attributes(node).size == (1 << 20) + 4096);
  CHECK(allocate(1 << 20, 4096, 3) == 0);  // and FALLOC_FL_PUNCH_HOLE
  CHECK(client.read(node, fh, 1 << 20, 4096).payload == std::string(4096, '\0'));
  CHECK(allocate(0, 4096, 0x80) == EOPNOTSUPP);
  // A user's takes the set-user-ID bit off, as a write does; root's does not.
  CHECK(chmod((folder / "a").c_str(), 04755) == 0);
  CHECK(allocate(0, 4096, 0) == 0);
  CHECK((client.attributes(node).mode & S_ISUID) != 0);
  client.uid = 1000;
  CHECK(allocate(0, 4096, 0) == 0);
  CHECK((client.attributes(node).mode & S_ISUID) == 0);
}

TEST_CASE("fuse work: renaming exchanges, and does not replace where told") {
  TempFolder folder(inMemory());
  FuseClient client({.directory = folder.share()});
  writeFile(folder / "a", "a");
  std::filesystem::create_directory(folder / "d");
  writeFile(folder / "d/b", "b");
  const uint64_t d = client.node(kRoot, "d");
  const uint64_t a = client.node(kRoot, "a");
  CHECK(client.rename(kRoot, "a", d, "b", RENAME_NOREPLACE).error == EEXIST);
  CHECK(client.rename(kRoot, "a", d, "b", RENAME_EXCHANGE).error == 0);
  CHECK(client.node(d, "b") == a);
  CHECK(readFile(folder / "a") == "b");
  CHECK(client.rename(d, "b", kRoot, "a").error == 0);
  CHECK(client.node(kRoot, "a") == a);
  CHECK(client.rename(kRoot, "a", kRoot, "none", RENAME_EXCHANGE).error == ENOENT);
  CHECK(client.rename(kRoot, "a", kRoot, "x", RENAME_EXCHANGE | RENAME_NOREPLACE).error == EINVAL);
  CHECK(client.rename(kRoot, "d", d, "in").error == EINVAL);
}

TEST_CASE("fuse work: a folder of 100,000 entries is read whole while it changes") {
  TempFolder folder(inMemory());
  constexpr int kEntries = 100'000;
  const Fd share(::open(folder.share().c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < kEntries; i++) {
    REQUIRE(mknodat(share.get(), ("f" + std::to_string(i)).c_str(), S_IFREG | 0600, 0) == 0);
  }
  FuseClient client({.directory = folder.share()});
  std::set<std::string> seen;
  const uint64_t fh = client.openedDirectory(kRoot);
  uint64_t offset = 0;
  uint64_t replies = 0;
  while (true) {
    // The first with all that a lookup tells, then names only, as Linux asks.
    const bool plus = replies < 4;
    const FuseReply reply = client.readdir(kRoot, fh, offset, 4096, plus);
    REQUIRE(reply.error == 0);
    if (reply.payload.empty()) {
      break;
    }
    for (size_t at = 0; at < reply.payload.size();) {
      const size_t start = at + (plus ? offsetof(fuse_direntplus, dirent) : 0);
      const auto entry = reply.as<fuse_dirent>(start);
      CHECK(seen.insert(reply.payload.substr(start + offsetof(fuse_dirent, name), entry.namelen)).second);
      offset = entry.off;
      at = start + FUSE_DIRENT_ALIGN(offsetof(fuse_dirent, name) + entry.namelen);
      at = plus ? (at + 7) & ~size_t{7} : at;
    }
    if (++replies % 50 == 0) {
      const std::string name = "new" + std::to_string(replies);
      CHECK(client.create(kRoot, name).error == 0);
      CHECK(client.unlink(kRoot, name).error == 0);
    }
  }
  int missing = 0;
  for (int i = 0; i < kEntries; i++) {
    missing += seen.count("f" + std::to_string(i)) == 0 ? 1 : 0;
  }
  CHECK(missing == 0);
}

TEST_CASE("fuse work: attributes of an open file are read by it") {
  TempFolder folder;
  FuseClient client({.directory = folder.share()});
  const FuseReply created = client.create(kRoot, "a", O_WRONLY);
  const uint64_t node = created.as<fuse_entry_out>().nodeid;
  const uint64_t fh = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  const auto get = [&](const char* name) {
    return client.call(FUSE_GETXATTR, node, bytesOf(fuse_getxattr_in{100, 0}) + zeroTerminated(name));
  };
  const int absent = get("user.tsvmm").error;
  CHECK((absent == ENODATA || absent == EOPNOTSUPP));
  if (setxattr((folder / "a").c_str(), "user.tsvmm", "value", 5, 0) == 0) {
    CHECK(get("user.tsvmm").payload == "value");
    client.release(node, fh);
    CHECK(get("user.tsvmm").payload == "value");
  }
}

TEST_CASE("fuse work: a shared folder that is removed or replaced") {
  TempFolder folder;
  writeFile(folder / "a", "a");
  FuseClient client({.directory = folder.share()});
  const uint64_t a = client.node(kRoot, "a");
  std::filesystem::rename(folder.share(), folder.outside("old"));
  std::filesystem::create_directory(folder.share());
  writeFile(folder / "a", "another");
  // The guest keeps the folder that it was given.
  CHECK(client.node(kRoot, "a") == a);
  CHECK(client.read(a, client.opened(a, O_RDONLY), 0, 100).payload == "a");
  std::filesystem::remove_all(folder.outside("old"));
  CHECK(client.lookup(kRoot, "a").error == ENOENT);
  CHECK(client.create(kRoot, "b").error == ENOENT);
  CHECK(client.getattr(kRoot).error == 0);
  CHECK(readFile(folder / "a") == "another");
}

TEST_CASE("fuse work: a guest that knows too many files is told so") {
  TempFolder folder(inMemory());
  for (int i = 0; i < 20; i++) {
    writeFile(folder / ("f" + std::to_string(i)), "");
  }
  FuseClient client({.directory = folder.share()});
  client.loop().call([&] { client.server().limitInodes(10); });
  for (int i = 0; i < 9; i++) {
    CHECK(client.lookup(kRoot, "f" + std::to_string(i)).error == 0);
  }
  CHECK(client.lookup(kRoot, "f9").error == ENFILE);
  CHECK(client.create(kRoot, "new").error == ENFILE);
  CHECK(client.lookup(kRoot, "f3").error == 0);
  // Listing goes on, without what a lookup would tell.
  CHECK(listFolder(client, kRoot, 4096, true).size() >= 22);
  client.forget(client.node(kRoot, "f3"), 100);
  CHECK(client.lookup(kRoot, "f9").error == 0);
}
