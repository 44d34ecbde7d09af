// What a guest may not do: leave the folder, confuse the server, make it grow or stop it.

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <random>
#include <thread>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {
constexpr uint64_t kRoot = FuseClient::kRoot;
}

TEST_CASE("fuse: names that are none are refused by every operation") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  writeFile(folder.outside("secret"), "secret");
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  const std::string bad[] = {"..", ".", "", "../secret", "/etc/passwd", "a/..", "a/", "x/y"};
  for (const std::string& name : bad) {
    CAPTURE(name);
    CHECK(client.lookup(kRoot, name).error == EINVAL);
    CHECK(client.create(kRoot, name).error == EINVAL);
    CHECK(client.mkdir(kRoot, name).error == EINVAL);
    CHECK(client.mknod(kRoot, name, S_IFREG | 0600).error == EINVAL);
    CHECK(client.symlink(kRoot, name, "target").error == EINVAL);
    CHECK(client.unlink(kRoot, name).error == EINVAL);
    CHECK(client.rmdir(kRoot, name).error == EINVAL);
    CHECK(client.link(node, kRoot, name).error == EINVAL);
    CHECK(client.rename(kRoot, name, kRoot, "b").error == EINVAL);
    CHECK(client.rename(kRoot, "a", kRoot, name).error == EINVAL);
  }
  const std::string longName(256, 'n');
  CHECK(client.lookup(kRoot, longName).error == ENAMETOOLONG);
  CHECK(client.create(kRoot, longName).error == ENAMETOOLONG);
  CHECK(client.symlink(kRoot, "s", std::string(5000, 't')).error == ENAMETOOLONG);
  CHECK(client.symlink(kRoot, "s", "").error == EINVAL);
  CHECK(client.call(FUSE_LOOKUP, kRoot, "without a zero").error == EINVAL);
  CHECK(client.call(FUSE_LOOKUP, kRoot, std::string(100'000, 'x')).error == ENAMETOOLONG);
}

TEST_CASE("fuse: symbolic links are not followed on the host") {
  TempFolder folder;
  std::filesystem::create_directory(folder.outside("out"));
  writeFile(folder.outside("out/secret"), "secret");
  std::filesystem::create_symlink("../out", folder / "up");
  std::filesystem::create_symlink("../out/secret", folder / "file");
  std::filesystem::create_symlink("/proc/self/root", folder / "magic");
  FuseClient client({.directory = folder.share()});
  for (const char* name : {"up", "file", "magic"}) {
    CAPTURE(name);
    const auto entry = client.lookup(kRoot, name).as<fuse_entry_out>();
    CHECK(S_ISLNK(entry.attr.mode));
    CHECK(client.lookup(entry.nodeid, "secret").error == ENOTDIR);
    CHECK(client.open(entry.nodeid, O_RDONLY).error == ELOOP);
    CHECK(client.call(FUSE_OPENDIR, entry.nodeid, bytesOf(fuse_open_in{})).error == ENOTDIR);
    CHECK(client.create(kRoot, name, O_RDWR).error == ELOOP);
    CHECK(client.create(kRoot, name, O_RDWR | O_TRUNC).error == ELOOP);
    fuse_setattr_in in{};
    in.valid = FATTR_SIZE;
    CHECK(client.setattr(entry.nodeid, in).error == EINVAL);
    // A hard link to it is a link to the link.
    CHECK(S_ISLNK(client.link(entry.nodeid, kRoot, std::string(name) + "2").as<fuse_entry_out>().attr.mode));
  }
  CHECK(readFile(folder.outside("out/secret")) == "secret");
}

TEST_CASE("fuse: a folder that is swapped with a symbolic link leads nowhere else") {
  TempFolder folder;
  std::filesystem::create_directory(folder.outside("out"));
  writeFile(folder.outside("out/secret"), "secret");
  std::filesystem::create_directory(folder / "dir");
  writeFile(folder / "dir/secret", "public");
  std::filesystem::create_symlink("../out", folder / "link");
  FuseClient client({.directory = folder.share()});
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    while (!stop) {
      renameat2(AT_FDCWD, (folder / "dir").c_str(), AT_FDCWD, (folder / "link").c_str(), RENAME_EXCHANGE);
    }
  });
  int read = 0;
  for (int i = 0; i < 3000; i++) {
    const FuseReply entry = client.lookup(kRoot, i % 2 == 0 ? "dir" : "link");
    REQUIRE(entry.error == 0);
    const uint64_t node = entry.as<fuse_entry_out>().nodeid;
    const FuseReply inner = client.lookup(node, "secret");
    if (S_ISLNK(entry.as<fuse_entry_out>().attr.mode)) {
      CHECK(inner.error == ENOTDIR);
    } else {
      REQUIRE(inner.error == 0);
      const uint64_t file = inner.as<fuse_entry_out>().nodeid;
      const uint64_t fh = client.opened(file, O_RDONLY);
      CHECK(client.read(file, fh, 0, 100).payload == "public");
      client.release(file, fh);
      client.forget(file);
      read++;
    }
    client.forget(node);
  }
  stop = true;
  swapper.join();
  CHECK(read > 0);
  CHECK(client.server().knownInodes() == 1);
}

TEST_CASE("fuse: a file that is swapped with a pipe is not opened as one") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  REQUIRE(mkfifo((folder / "b").c_str(), 0600) == 0);
  FuseClient client({.directory = folder.share()});
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    while (!stop) {
      renameat2(AT_FDCWD, (folder / "a").c_str(), AT_FDCWD, (folder / "b").c_str(), RENAME_EXCHANGE);
    }
  });
  for (int i = 0; i < 2000; i++) {
    // An open pipe without a writer would stop the server for good.
    const FuseReply reply = client.create(kRoot, "a", O_RDONLY);
    CHECK((reply.error == 0 || reply.error == ENXIO));
  }
  stop = true;
  swapper.join();
}

TEST_CASE("fuse: read-only means nothing changes") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  std::filesystem::create_directory(folder / "d");
  FuseClient client({.directory = folder.share(), .readOnly = true});
  const uint64_t node = client.node(kRoot, "a");
  CHECK(client.open(node, O_RDWR).error == EROFS);
  CHECK(client.open(node, O_WRONLY).error == EROFS);
  CHECK(client.open(node, O_RDONLY | O_TRUNC).error == EROFS);
  const uint64_t fh = client.opened(node, O_RDONLY);
  CHECK(client.read(node, fh, 0, 10).payload == "x");
  CHECK(client.write(node, fh, 0, "y").error == EROFS);
  CHECK(client.create(kRoot, "b").error == EROFS);
  CHECK(client.create(kRoot, "a", O_RDONLY).error == EROFS);
  CHECK(client.mkdir(kRoot, "b").error == EROFS);
  CHECK(client.mknod(kRoot, "b", S_IFIFO).error == EROFS);
  CHECK(client.symlink(kRoot, "b", "x").error == EROFS);
  CHECK(client.link(node, kRoot, "b").error == EROFS);
  CHECK(client.unlink(kRoot, "a").error == EROFS);
  CHECK(client.rmdir(kRoot, "d").error == EROFS);
  CHECK(client.rename(kRoot, "a", kRoot, "b").error == EROFS);
  CHECK(client.setattr(node, {}).error == EROFS);
  CHECK(client.call(FUSE_SETXATTR, node, "").error == EROFS);
  CHECK(client.call(FUSE_REMOVEXATTR, node, "").error == EROFS);
  CHECK(client.call(FUSE_FALLOCATE, node, "").error == EROFS);
  CHECK(client.call(FUSE_COPY_FILE_RANGE, node, "").error == EROFS);
  CHECK(client.call(FUSE_TMPFILE, kRoot, "").error == EROFS);
  CHECK(client.call(FUSE_ACCESS, node, bytesOf(fuse_access_in{W_OK, 0})).error == EROFS);
}

TEST_CASE("fuse: lengths that lie") {
  TempFolder folder;
  writeFile(folder / "a", std::string(1000, 'a'));
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  const uint64_t fh = client.opened(node, O_RDWR);

  SUBCASE("shorter than the header: nothing is written") {
    for (size_t length = 0; length < sizeof(fuse_in_header); length++) {
      const auto sent = client.sendRaw(client.header(FUSE_GETATTR, kRoot, 16).substr(0, length), 200);
      CHECK(sent->outcome.written == 0);
      CHECK_FALSE(sent->outcome.pending);
    }
  }
  SUBCASE("the header's length against what is there") {
    std::string bytes = client.header(FUSE_GETATTR, kRoot, 16) + bytesOf(fuse_getattr_in{});
    for (const uint32_t length : {0u, 39u, 57u, 4096u, ~0u}) {
      std::memcpy(bytes.data(), &length, 4);
      CHECK(client.receive(*client.sendRaw(bytes, 200)).error == EINVAL);
    }
    const uint32_t length = 48;
    std::memcpy(bytes.data(), &length, 4);
    CHECK(client.receive(*client.sendRaw(bytes, 200)).error == EINVAL);
  }
  SUBCASE("no room for the reply: nothing is done") {
    const std::string body = bytesOf(fuse_mkdir_in{0755, 0}) + zeroTerminated("d");
    for (size_t room = 0; room < sizeof(fuse_out_header); room++) {
      const auto sent = client.sendRaw(client.header(FUSE_MKDIR, kRoot, body.size()) + body, room);
      CHECK(sent->outcome.written == 0);
    }
    for (const size_t room : {0u, 1u, 127u}) {
      CHECK(client.call(FUSE_MKDIR, kRoot, body, room).error == EINVAL);
    }
    CHECK_FALSE(std::filesystem::exists(folder / "d"));
    CHECK(client.call(FUSE_MKDIR, kRoot, body, 128).error == 0);
    const size_t known = client.server().knownInodes();
    CHECK(client.call(FUSE_LOOKUP, kRoot, zeroTerminated("a"), 100).error == EINVAL);
    CHECK(client.server().knownInodes() == known);
  }
  SUBCASE("sizes beyond the data") {
    fuse_write_in write{};
    write.fh = fh;
    write.size = 100;
    CHECK(client.call(FUSE_WRITE, node, bytesOf(write) + "short").error == EINVAL);
    write.size = ~0u;
    CHECK(client.call(FUSE_WRITE, node, bytesOf(write) + "short").error == EINVAL);
    fuse_read_in read{};
    read.fh = fh;
    read.size = ~0u;
    CHECK(client.call(FUSE_READ, node, bytesOf(read), 10).payload == std::string(10, 'a'));
    CHECK(client.call(FUSE_READ, node, bytesOf(read), 0).payload.empty());
    const fuse_setxattr_in set{100, 0, 0, 0};
    CHECK(client
              .call(FUSE_SETXATTR, node,
                    bytesOf(set).substr(0, FUSE_COMPAT_SETXATTR_IN_SIZE) + zeroTerminated("user.a") + "short")
              .error == EINVAL);
    client.call(FUSE_BATCH_FORGET, 0,
                bytesOf(fuse_batch_forget_in{~0u, 0}) + bytesOf(fuse_forget_one{node, 0}), 0);
    CHECK(client.getattr(node).error == 0);
    CHECK(client.call(FUSE_READLINK, client.symlink(kRoot, "l", "target").as<fuse_entry_out>().nodeid, "", 3)
              .error == EINVAL);
  }
  SUBCASE("operations that don't exist") {
    for (const uint32_t opcode : {0u, 7u, 19u, 41u, 48u, 49u, 52u, 4096u, ~0u}) {
      CHECK(client.call(opcode, kRoot, "").error == ENOSYS);
    }
  }
}

/// Bounds how large a file may get, so that a damaged size does not fill the disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limited{std::min(bytes, before_.rlim_max), before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limited);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_CASE("fuse: thousands of damaged requests") {
  const FileSizeLimit limit(16 << 20);
  const size_t before = openDescriptors();
  {
    TempFolder folder;
    std::mt19937 random(4711);
    for (const bool hostLocks : {false, true}) {
      writeFile(folder / "a", std::string(5000, 'a'));
      std::filesystem::create_directories(folder / "d/e");
      FuseClient client({.directory = folder.share(), .hostLocks = hostLocks, .posixAcl = hostLocks});
      const uint64_t node = client.node(kRoot, "a");
      const uint64_t directory = client.node(kRoot, "d");
      const uint64_t fh = client.opened(node, O_RDWR);
      const uint64_t dfh = client.openedDirectory(directory);
      fuse_read_in read{};
      read.fh = fh;
      read.size = 4096;
      fuse_read_in list = read;
      list.fh = dfh;
      fuse_write_in write{};
      write.fh = fh;
      write.size = 64;
      fuse_setattr_in attributes{};
      attributes.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME;
      attributes.mode = 0644;
      attributes.size = 5000;
      fuse_lk_in lock{};
      lock.fh = fh;
      lock.lk = {0, 10, F_WRLCK, 1};
      const auto name = [](const char* text) { return zeroTerminated(text); };
      const std::pair<uint32_t, std::string> seeds[] = {
          {FUSE_LOOKUP, name("a")},
          {FUSE_GETATTR, bytesOf(fuse_getattr_in{FUSE_GETATTR_FH, 0, fh})},
          {FUSE_SETATTR, bytesOf(attributes)},
          {FUSE_READLINK, ""},
          {FUSE_SYMLINK, name("s") + name("t")},
          {FUSE_MKNOD, bytesOf(fuse_mknod_in{S_IFIFO | 0600, 0, 0, 0}) + name("f")},
          {FUSE_MKDIR, bytesOf(fuse_mkdir_in{0755, 0}) + name("m")},
          {FUSE_UNLINK, name("s")},
          {FUSE_RMDIR, name("m")},
          {FUSE_RENAME, bytesOf(fuse_rename_in{directory}) + name("s") + name("r")},
          {FUSE_RENAME2, bytesOf(fuse_rename2_in{directory, 1, 0}) + name("s") + name("r")},
          {FUSE_LINK, bytesOf(fuse_link_in{node}) + name("h")},
          {FUSE_OPEN, bytesOf(fuse_open_in{O_RDWR, 0})},
          {FUSE_READ, bytesOf(read)},
          {FUSE_WRITE, bytesOf(write) + std::string(64, 'w')},
          {FUSE_STATFS, ""},
          {FUSE_FSYNC, bytesOf(fuse_fsync_in{fh, 1, 0})},
          {FUSE_SETXATTR, std::string("\1\0\0\0\0\0\0\0", 8) + name("user.x") + "v"},
          {FUSE_GETXATTR, bytesOf(fuse_getxattr_in{100, 0}) + name("user.x")},
          {FUSE_LISTXATTR, bytesOf(fuse_getxattr_in{100, 0})},
          {FUSE_REMOVEXATTR, name("user.x")},
          {FUSE_FLUSH, bytesOf(fuse_flush_in{fh, 0, 0, 1})},
          {FUSE_OPENDIR, bytesOf(fuse_open_in{O_DIRECTORY, 0})},
          {FUSE_READDIR, bytesOf(list)},
          {FUSE_READDIRPLUS, bytesOf(list)},
          {FUSE_FSYNCDIR, bytesOf(fuse_fsync_in{dfh, 1, 0})},
          {FUSE_GETLK, bytesOf(lock)},
          {FUSE_SETLK, bytesOf(lock)},
          {FUSE_SETLKW, bytesOf(lock)},
          {FUSE_ACCESS, bytesOf(fuse_access_in{4, 0})},
          {FUSE_CREATE, bytesOf(fuse_create_in{O_RDWR, S_IFREG | 0600, 0, 0}) + name("c")},
          {FUSE_TMPFILE, bytesOf(fuse_create_in{O_RDWR, S_IFREG | 0600, 0, 0}) + name("/")},
          {FUSE_INTERRUPT, bytesOf(fuse_interrupt_in{1})},
          {FUSE_IOCTL, bytesOf(fuse_ioctl_in{})},
          {FUSE_BATCH_FORGET, bytesOf(fuse_batch_forget_in{1, 0}) + bytesOf(fuse_forget_one{node, 0})},
          {FUSE_FALLOCATE, bytesOf(fuse_fallocate_in{fh, 0, 100, 0, 0})},
          {FUSE_LSEEK, bytesOf(fuse_lseek_in{fh, 0, SEEK_HOLE, 0})},
          {FUSE_COPY_FILE_RANGE, bytesOf(fuse_copy_file_range_in{fh, 0, node, fh, 100, 50, 0})},
      };
      std::vector<std::unique_ptr<FuseClient::Sent>> pending;
      int successes = 0;
      for (int round = 0; round < 6000; round++) {
        const auto& [opcode, body] = seeds[random() % std::size(seeds)];
        std::string bytes = client.header(opcode,
                                          random() % 2 == 0   ? node
                                          : random() % 2 == 0 ? directory
                                                              : kRoot,
                                          body.size()) +
                            body;
        for (uint32_t damage = random() % 4; damage > 0; damage--) {
          // Not the opcode: INIT and DESTROY would end what is being tested.
          const size_t at = random() % bytes.size();
          if (at >= 4 && at < 8) {
            continue;
          }
          switch (random() % 4) {
            case 0:
              bytes[at] = static_cast<char>(random());
              break;
            case 1:
              bytes[at] = static_cast<char>(random() % 2 == 0 ? 0xff : 0);
              break;
            case 2:
              bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
              break;
            default:
              bytes.resize(at + 1);
          }
        }
        fuse_fallocate_in allocate{};
        if (opcode == FUSE_FALLOCATE && bytes.size() >= sizeof(fuse_in_header) + sizeof allocate) {
          std::memcpy(&allocate, bytes.data() + sizeof(fuse_in_header), sizeof allocate);
          if (allocate.length > 16 << 20) {
            continue;  // With FALLOC_FL_KEEP_SIZE, the limit of a file's size is none.
          }
        }
        const size_t room = random() % 3 == 0 ? random() % 300 : 5000;
        auto sent = client.sendRaw(bytes, room, random() % 2 == 0 ? 0 : 1 + random() % 100);
        CHECK(sent->outcome.written <= room);
        if (sent->outcome.pending) {
          pending.push_back(std::move(sent));
        } else {
          successes += client.receive(*sent).error == 0 ? 1 : 0;
        }
      }
      CHECK(successes > 500);
      client.init();  // Ends what waits for locks.
      for (const auto& sent : pending) {
        client.receive(*sent);
      }
      openUp(folder.share());
      CHECK(client.lookup(kRoot, "d").error == 0);
      std::filesystem::remove_all(folder.share());
      std::filesystem::create_directory(folder.share());
    }
  }
  CHECK(openDescriptors() == before);
}

TEST_CASE("fuse: more files than descriptors") {
  TempFolder folder;
  constexpr int kFiles = 200;
  for (int i = 0; i < kFiles; i++) {
    std::filesystem::create_directory(folder / ("d" + std::to_string(i)));
    writeFile(folder / ("d" + std::to_string(i)) + "/f", std::to_string(i));
  }
  FuseClient client({.directory = folder.share(), .maxPaths = 32});
  std::vector<uint64_t> folders;
  std::vector<uint64_t> files;
  for (int i = 0; i < kFiles; i++) {
    folders.push_back(client.node(kRoot, "d" + std::to_string(i)));
    files.push_back(client.node(folders.back(), "f"));
  }
  CHECK(client.server().knownInodes() == 1 + 2 * kFiles);
  if (client.server().heldPaths() > 2 * kFiles) {
    return;  // No right to use file handles, or a file system without: all descriptors are held.
  }
  CHECK(client.server().heldPaths() <= 40);
  for (int i = 0; i < kFiles; i++) {
    // Known by the same node id, however it is asked for.
    CHECK(client.node(kRoot, "d" + std::to_string(i)) == folders[static_cast<size_t>(i)]);
    CHECK(client.node(folders[static_cast<size_t>(i)], "f") == files[static_cast<size_t>(i)]);
    const uint64_t fh = client.opened(files[static_cast<size_t>(i)], O_RDONLY);
    CHECK(client.read(files[static_cast<size_t>(i)], fh, 0, 10).payload == std::to_string(i));
    client.release(files[static_cast<size_t>(i)], fh);
  }
  CHECK(client.rename(folders[0], "f", folders[1], "g").error == 0);
  CHECK(client.node(folders[1], "g") == files[0]);

  // Gone while only its handle was kept: a new file of the same inode number is another one.
  for (int i = 2; i < 50; i++) {
    std::filesystem::remove(folder / ("d" + std::to_string(i)) + "/f");
    writeFile(folder / ("d" + std::to_string(i)) + "/f", "new");
  }
  for (size_t i = 2; i < 50; i++) {
    const uint64_t now = client.node(folders[i], "f");
    CHECK(now != files[i]);
    const uint64_t fh = client.opened(now, O_RDONLY);
    CHECK(client.read(now, fh, 0, 10).payload == "new");
    client.release(now, fh);
    client.forget(now);
  }
  for (size_t i = 0; i < files.size(); i++) {
    client.forget(files[i], i == 0 ? 3 : 2);
    client.forget(folders[i], 2);
  }
  CHECK(client.server().knownInodes() == 1);
}

TEST_CASE("fuse: a guest that holds files without end is stopped before the process is") {
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  if (virtio::fs::FdBudget::limit() > 100'000) {
    return;  // Too many to be tried here.
  }
  TempFolder folder;
  writeFile(folder / "a", "x");
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  int error = 0;
  long count = 0;
  while (error == 0 && count < 200'000) {
    error = client.open(node, O_RDONLY).error;
    count++;
  }
  CHECK(error == ENFILE);
  CHECK(count <= virtio::fs::FdBudget::limit());
  CHECK(client.create(kRoot, "b").error == ENFILE);
  CHECK_FALSE(std::filesystem::exists(folder / "b"));
  const int own = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(own >= 0);
  close(own);
}
