// The FUSE server by itself: the session, looking up, what changes folders, reading them.

#include <doctest/doctest.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;
using virtio::fs::Cache;

namespace {
constexpr uint64_t kRoot = FuseClient::kRoot;
bool isRoot() { return geteuid() == 0; }
}  // namespace

TEST_CASE("fuse: INIT agrees on the protocol and on what was offered") {
  TempFolder folder;
  FuseClient client({.directory = folder.share()}, false);
  CHECK(client.getattr(kRoot).error == EIO);

  SUBCASE("all that is offered") {
    const auto out = client.init().as<fuse_init_out>();
    CHECK(out.major == 7);
    CHECK(out.minor == 38);
    CHECK(out.max_write == 1 << 20);
    CHECK(out.max_pages == 256);
    CHECK(out.max_readahead == 1 << 17);
    CHECK(out.time_gran == 1);
    const uint32_t must = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                          FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES |
                          FUSE_AUTO_INVAL_DATA;
    CHECK((out.flags & must) == must);
    CHECK((out.flags & (FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_POSIX_ACL)) == 0);
    CHECK(S_ISDIR(client.attributes(kRoot).mode));
  }
  SUBCASE("not more than is offered") {
    CHECK(client.init(FUSE_BIG_WRITES).as<fuse_init_out>().flags == FUSE_BIG_WRITES);
  }
  SUBCASE("a newer major version gets ours, and asks again") {
    fuse_init_in in{};
    in.major = 8;
    const FuseReply reply = client.call(FUSE_INIT, 0, bytesOf(in));
    CHECK(reply.error == 0);
    CHECK(reply.payload.size() == FUSE_COMPAT_INIT_OUT_SIZE);
    CHECK(reply.as<uint32_t>() == 7);
    CHECK(client.getattr(kRoot).error == EIO);
    CHECK(client.init().error == 0);
  }
  SUBCASE("too old a version is refused") { CHECK(client.init(0, 30).error == EPROTO); }
  SUBCASE("a second INIT starts anew") {
    client.init();
    writeFile(folder / "a", "x");
    const uint64_t node = client.node(kRoot, "a");
    const uint64_t fh = client.opened(node, O_RDONLY);
    client.init();
    CHECK(client.getattr(node).error == ESTALE);
    CHECK(client.read(node, fh, 0, 1).error == EBADF);
    CHECK(client.server().knownInodes() == 1);
  }
  SUBCASE("DESTROY ends it") {
    client.init();
    CHECK(client.call(FUSE_DESTROY, 0, "").error == 0);
    CHECK(client.getattr(kRoot).error == EIO);
  }
}

TEST_CASE("fuse: cache modes differ in flags and timeouts") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  SUBCASE("none") {
    FuseClient client({.directory = folder.share(), .cache = Cache::kNone});
    const auto entry = client.lookup(kRoot, "a").as<fuse_entry_out>();
    CHECK(entry.entry_valid == 0);
    CHECK(entry.attr_valid == 0);
    CHECK(client.lookup(kRoot, "absent").error == ENOENT);
    CHECK(client.open(entry.nodeid, O_RDONLY).as<fuse_open_out>().open_flags == 0);
    CHECK(client.open(entry.nodeid, O_RDONLY).as<fuse_open_out>().open_flags == 0);
  }
  SUBCASE("auto keeps the pages of a file that has not changed") {
    FuseClient client({.directory = folder.share()});
    const auto entry = client.lookup(kRoot, "a").as<fuse_entry_out>();
    CHECK(entry.entry_valid == 1);
    CHECK(entry.attr_valid == 1);
    CHECK(client.open(entry.nodeid, O_RDONLY).as<fuse_open_out>().open_flags == 0);
    CHECK(client.open(entry.nodeid, O_RDONLY).as<fuse_open_out>().open_flags == FOPEN_KEEP_CACHE);
    writeFile(folder / "a", "changed");
    CHECK(client.open(entry.nodeid, O_RDONLY).as<fuse_open_out>().open_flags == 0);
  }
  SUBCASE("always, with absent names and write-back") {
    FuseClient client({.directory = folder.share(), .cache = Cache::kAlways, .writeback = true}, false);
    const uint32_t flags = client.init().as<fuse_init_out>().flags;
    CHECK((flags & FUSE_WRITEBACK_CACHE) != 0);
    CHECK((flags & FUSE_AUTO_INVAL_DATA) == 0);
    const auto entry = client.lookup(kRoot, "a").as<fuse_entry_out>();
    CHECK(entry.entry_valid == 86400);
    const FuseReply absent = client.lookup(kRoot, "absent");
    CHECK(absent.error == 0);
    CHECK(absent.as<fuse_entry_out>().nodeid == 0);
    CHECK(absent.as<fuse_entry_out>().entry_valid == 86400);
    CHECK(client.open(entry.nodeid, O_WRONLY).as<fuse_open_out>().open_flags == FOPEN_KEEP_CACHE);
    // A write-only open can be read by the guest's page cache.
    const uint64_t fh = client.opened(entry.nodeid, O_WRONLY);
    CHECK(client.read(entry.nodeid, fh, 0, 1).payload == "x");
  }
}

TEST_CASE("fuse: LOOKUP and GETATTR tell what the host has") {
  TempFolder folder;
  writeFile(folder / "file", "hello");
  std::filesystem::create_directory(folder / "dir");
  writeFile(folder / "dir/inner", "");
  FuseClient client({.directory = folder.share()});

  const auto file = client.lookup(kRoot, "file").as<fuse_entry_out>();
  struct stat host;
  REQUIRE(stat((folder / "file").c_str(), &host) == 0);
  CHECK(file.attr.ino == host.st_ino);
  CHECK(file.attr.size == 5);
  CHECK(file.attr.mode == host.st_mode);
  CHECK(file.attr.nlink == 1);
  CHECK(file.attr.uid == host.st_uid);
  CHECK(file.attr.mtime == static_cast<uint64_t>(host.st_mtim.tv_sec));
  CHECK(file.attr.mtimensec == host.st_mtim.tv_nsec);
  CHECK(client.node(kRoot, "file") == file.nodeid);
  CHECK(client.node(client.node(kRoot, "dir"), "inner") != file.nodeid);
  CHECK(client.lookup(kRoot, "none").error == ENOENT);
  CHECK(client.lookup(file.nodeid, "x").error == ENOTDIR);
  CHECK(client.lookup(12345, "x").error == ESTALE);

  // A hard link is the same file, a file of the same name is not.
  std::filesystem::create_hard_link(folder / "file", folder / "link");
  CHECK(client.node(kRoot, "link") == file.nodeid);
  std::filesystem::remove(folder / "file");
  writeFile(folder / "file", "new");
  CHECK(client.node(kRoot, "file") != file.nodeid);
  CHECK(client.attributes(file.nodeid).size == 5);

  const auto space = client.call(FUSE_STATFS, kRoot, "").as<fuse_statfs_out>();
  CHECK(space.st.blocks > 0);
  CHECK(space.st.namelen == 255);
}

TEST_CASE("fuse: FORGET counts exactly and leaves no descriptor") {
  TempFolder folder;
  for (int i = 0; i < 100; i++) {
    writeFile(folder / ("f" + std::to_string(i)), "x");
  }
  FuseClient client({.directory = folder.share()});
  const size_t before = openDescriptors();
  std::string batch = bytesOf(fuse_batch_forget_in{100, 0});
  std::vector<uint64_t> nodes;
  for (int i = 0; i < 100; i++) {
    const std::string name = "f" + std::to_string(i);
    nodes.push_back(client.node(kRoot, name));
    CHECK(client.node(kRoot, name) == nodes.back());
    batch += bytesOf(fuse_forget_one{nodes.back(), 1});
  }
  CHECK(client.server().knownInodes() == 101);
  CHECK(openDescriptors() == before + 100);
  CHECK_FALSE(client.call(FUSE_BATCH_FORGET, 0, batch, 0).given);
  CHECK(client.server().knownInodes() == 101);
  CHECK(client.getattr(nodes[7]).error == 0);
  client.forget(nodes[0], 1000);  // more than were counted
  CHECK(client.getattr(nodes[0]).error == ESTALE);
  client.forget(nodes[0], 1);
  CHECK_FALSE(client.call(FUSE_BATCH_FORGET, 0, batch, 0).given);
  CHECK(client.server().knownInodes() == 1);
  CHECK(openDescriptors() == before);
  client.forget(kRoot, 1000);
  CHECK(client.getattr(kRoot).error == 0);
  // The slots are used again, the node ids are not.
  CHECK(client.node(kRoot, "f0") != nodes[0]);
  for (const uint64_t node : nodes) {
    CHECK(client.getattr(node).error == ESTALE);
  }
}

TEST_CASE("fuse: folders, links and special files") {
  TempFolder folder;
  FuseClient client({.directory = folder.share()});

  const FuseReply made = client.mkdir(kRoot, "d", 0751);
  CHECK((made.as<fuse_entry_out>().attr.mode & 07777) == 0751);
  const uint64_t directory = made.as<fuse_entry_out>().nodeid;
  CHECK(client.mkdir(kRoot, "d").error == EEXIST);
  CHECK(client.create(directory, "f").error == 0);
  CHECK(client.rmdir(kRoot, "d").error == ENOTEMPTY);
  CHECK(client.unlink(kRoot, "d").error == EISDIR);
  const uint64_t file = client.node(directory, "f");

  const FuseReply linked = client.link(file, kRoot, "hard");
  CHECK(linked.as<fuse_entry_out>().nodeid == file);
  CHECK(linked.as<fuse_entry_out>().attr.nlink == 2);
  CHECK(client.link(file, kRoot, "hard").error == EEXIST);

  CHECK(client.symlink(kRoot, "soft", "/etc/passwd").error == 0);
  const uint64_t soft = client.node(kRoot, "soft");
  CHECK(client.call(FUSE_READLINK, soft, "").payload == "/etc/passwd");
  CHECK(client.call(FUSE_READLINK, file, "").error == EINVAL);
  CHECK(client.link(soft, kRoot, "soft2").as<fuse_entry_out>().nodeid == soft);
  CHECK(S_ISLNK(client.attributes(soft).mode));
  CHECK(client.open(soft, O_RDONLY).error == ELOOP);

  CHECK(client.mknod(kRoot, "fifo", S_IFIFO | 0600).error == 0);
  CHECK(client.mknod(kRoot, "socket", S_IFSOCK | 0600).error == 0);
  CHECK(client.mknod(kRoot, "regular", S_IFREG | 0600).error == 0);
  // Would wait for a writer, or open a driver: neither is opened.
  CHECK(client.open(client.node(kRoot, "fifo"), O_RDONLY).error == ENXIO);
  CHECK(client.create(kRoot, "fifo", O_WRONLY).error == ENXIO);
  if (isRoot()) {
    const FuseReply null = client.mknod(kRoot, "null", S_IFCHR | 0666, 0x103);
    if (null.error == 0) {
      CHECK(null.as<fuse_entry_out>().attr.rdev == 0x103);
      struct stat host;
      REQUIRE(stat((folder / "null").c_str(), &host) == 0);
      CHECK(host.st_rdev == makedev(1, 3));
      CHECK(client.open(client.node(kRoot, "null"), O_RDONLY).error == ENXIO);
      CHECK(client.mknod(kRoot, "big", S_IFBLK | 0600, 0xabcde123).as<fuse_entry_out>().attr.rdev ==
            0xabcde123);
    }
  }
  CHECK(client.open(directory, O_RDONLY).error == EISDIR);

  CHECK(client.rename(directory, "f", kRoot, "moved").error == 0);
  CHECK(client.node(kRoot, "moved") == file);
  CHECK(client.rename(kRoot, "moved", kRoot, "regular", RENAME_NOREPLACE).error == EEXIST);
  CHECK(client.rename(kRoot, "moved", kRoot, "d", RENAME_EXCHANGE).error == 0);
  CHECK(client.node(kRoot, "d") == file);
  CHECK(client.node(kRoot, "moved") == directory);
  CHECK(client.rename(kRoot, "moved", kRoot, "d", 0x80).error == EINVAL);
  CHECK(client
            .call(FUSE_RENAME, kRoot,
                  bytesOf(fuse_rename_in{kRoot}) + zeroTerminated("d") + zeroTerminated("e"))
            .error == 0);
  CHECK(client.node(kRoot, "e") == file);
  CHECK(client.rmdir(kRoot, "moved").error == 0);
  CHECK(client.rmdir(kRoot, "e").error == ENOTDIR);
  CHECK(client.getattr(directory).error == 0);
  CHECK(client.create(directory, "gone").error == ENOENT);
}

TEST_CASE("fuse: what is created belongs to the requester") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  FuseClient client({.directory = folder.share()});
  client.uid = 1000;
  client.gid = 1001;
  const auto check = [&](const FuseReply& reply, uint32_t gid = 1001) {
    REQUIRE(reply.error == 0);
    CHECK(reply.as<fuse_entry_out>().attr.uid == 1000);
    CHECK(reply.as<fuse_entry_out>().attr.gid == gid);
  };
  // The share belongs to root and is closed to others: the guest's kernel has checked.
  check(client.create(kRoot, "file", O_RDWR, 06777));
  CHECK((client.attributes(client.node(kRoot, "file")).mode & 07777) == 06777);
  check(client.mkdir(kRoot, "dir", 0777));
  check(client.symlink(kRoot, "link", "x"));
  check(client.mknod(kRoot, "fifo", S_IFIFO | 0600));
  // A set-group-ID folder hands its group on.
  client.uid = client.gid = 0;
  const uint64_t shared = client.mkdir(kRoot, "shared", 02777).as<fuse_entry_out>().nodeid;
  fuse_setattr_in in{};
  in.valid = FATTR_GID | FATTR_MODE;
  in.gid = 55;
  in.mode = 02777;
  CHECK(client.setattr(shared, in).error == 0);
  client.uid = 1000;
  client.gid = 1001;
  check(client.create(shared, "file"), 55);
  const FuseReply inner = client.mkdir(shared, "dir", 0777);
  check(inner, 55);
  CHECK((inner.as<fuse_entry_out>().attr.mode & 07777) == 02777);
  // The thread is itself again.
  client.uid = client.gid = 0;
  CHECK(client.create(kRoot, "roots").as<fuse_entry_out>().attr.uid == 0);
  // The process keeps its umask, and the server has its own.
  const mode_t before = umask(077);
  CHECK((client.create(kRoot, "open", O_RDWR, 0666).as<fuse_entry_out>().attr.mode & 0777) == 0666);
  CHECK(umask(before) == 077);
}

TEST_CASE("fuse: TMPFILE and giving it a name") {
  TempFolder folder;
  FuseClient client({.directory = folder.share()});
  const FuseReply made = client.call(
      FUSE_TMPFILE, kRoot, bytesOf(fuse_create_in{O_RDWR, S_IFREG | 0600, 0, 0}) + zeroTerminated("/"));
  if (made.error == EOPNOTSUPP) {
    return;
  }
  REQUIRE(made.error == 0);
  const uint64_t node = made.as<fuse_entry_out>().nodeid;
  const uint64_t fh = made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  CHECK(made.as<fuse_entry_out>().attr.nlink == 0);
  CHECK(client.write(node, fh, 0, "data").error == 0);
  CHECK(client.link(node, kRoot, "named").as<fuse_entry_out>().nodeid == node);
  CHECK(readFile(folder / "named") == "data");
}

TEST_CASE("fuse: reading folders, whatever the size of the reply") {
  TempFolder folder;
  std::set<std::string> names{".", ".."};
  for (int i = 0; i < 300; i++) {
    const std::string name =
        std::string(static_cast<size_t>(1 + i % 250), 'x').replace(0, 1, "f") + std::to_string(i);
    writeFile(folder / name, "");
    names.insert(name);
  }
  std::filesystem::create_directory(folder / "sub");
  names.insert("sub");
  FuseClient client({.directory = folder.share()});
  for (const bool plus : {false, true}) {
    for (const uint32_t size : {440u, 1000u, 4096u, 65536u, 1u << 20}) {
      std::set<std::string> seen;
      size_t count = 0;
      for (const DirectoryEntry& entry : listFolder(client, kRoot, size, plus)) {
        seen.insert(entry.name);
        count++;
        if (entry.name == "sub") {
          CHECK(entry.type == (S_IFDIR >> 12));
        }
        if (plus) {
          CHECK((entry.node == 0) == (entry.name == "." || entry.name == ".."));
          if (entry.node != 0) {
            client.forget(entry.node);
          }
        }
      }
      CHECK(seen == names);
      CHECK(count == names.size());
    }
    CHECK(client.server().knownInodes() == 1);
  }
  const uint64_t fh = client.openedDirectory(kRoot);
  CHECK(client.readdir(kRoot, fh, 0, 16).error == EINVAL);
  CHECK(client.readdir(kRoot, fh, ~uint64_t{0}, 4096).error == EINVAL);
  CHECK(client.readdir(kRoot, fh + 1, 0, 4096).error == EBADF);
  CHECK(client.read(kRoot, fh, 0, 10).error == EBADF);
  CHECK(client.release(kRoot, fh).error == EBADF);
  CHECK(client.call(FUSE_FSYNCDIR, kRoot, bytesOf(fuse_fsync_in{fh, 0, 0})).error == 0);
  CHECK(client.releasedir(kRoot, fh).error == 0);
  CHECK(client.call(FUSE_OPENDIR, client.node(kRoot, "f0"), bytesOf(fuse_open_in{})).error == ENOTDIR);
}

TEST_CASE("fuse: extended attributes") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  if (setxattr((folder / "a").c_str(), "user.probe", "1", 1, 0) != 0) {
    return;  // The file system of the temporary folder has none.
  }
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  const auto set = [&](uint64_t at, const std::string& name, const std::string& value, uint32_t flags = 0) {
    const fuse_setxattr_in in{static_cast<uint32_t>(value.size()), flags, 0, 0};
    return client.call(FUSE_SETXATTR, at,
                       bytesOf(in).substr(0, FUSE_COMPAT_SETXATTR_IN_SIZE) + zeroTerminated(name) + value);
  };
  const auto get = [&](uint64_t at, const std::string& name, uint32_t size) {
    return client.call(FUSE_GETXATTR, at, bytesOf(fuse_getxattr_in{size, 0}) + zeroTerminated(name), 70000);
  };
  CHECK(set(node, "user.two", std::string("a\0b", 3)).error == 0);
  CHECK(get(node, "user.two", 100).payload == std::string("a\0b", 3));
  CHECK(get(node, "user.two", 0).as<fuse_getxattr_out>().size == 3);
  CHECK(get(node, "user.two", 2).error == ERANGE);
  CHECK(get(node, "user.none", 2).error == ENODATA);
  CHECK(set(node, "user.two", "x", XATTR_CREATE).error == EEXIST);
  CHECK(set(node, "user.three", "x", XATTR_REPLACE).error == ENODATA);
  CHECK(set(node, "user.two", "x", 4).error == EINVAL);
  CHECK(set(node, std::string(300, 'n'), "x").error == ERANGE);
  CHECK(set(node, "user.big", std::string(65537, 'v')).error == E2BIG);
  CHECK(set(node, "system.posix_acl_access", "x").error == EOPNOTSUPP);
  const FuseReply list = client.call(FUSE_LISTXATTR, node, bytesOf(fuse_getxattr_in{1000, 0}));
  CHECK(list.payload.find(zeroTerminated("user.two")) != std::string::npos);
  CHECK(list.payload.find(zeroTerminated("user.probe")) != std::string::npos);
  CHECK(client.call(FUSE_REMOVEXATTR, node, zeroTerminated("user.two")).error == 0);
  CHECK(client.call(FUSE_REMOVEXATTR, node, zeroTerminated("user.two")).error == ENODATA);
  if (isRoot()) {
    // An attribute of a symbolic link is its own, not its target's.
    CHECK(client.symlink(kRoot, "l", "a").error == 0);
    const uint64_t link = client.node(kRoot, "l");
    CHECK(set(link, "trusted.link", "1").error == 0);
    CHECK(get(link, "trusted.link", 10).payload == "1");
    CHECK(get(node, "trusted.link", 10).error == ENODATA);
    CHECK(get(link, "user.probe", 10).error != 0);
  }
}

TEST_CASE("fuse: ACCESS goes by the mode") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  FuseClient client({.directory = folder.share()});
  const uint64_t node = client.node(kRoot, "a");
  const auto access = [&](uint32_t mask) {
    return client.call(FUSE_ACCESS, node, bytesOf(fuse_access_in{mask, 0})).error;
  };
  chmod((folder / "a").c_str(), 0640);
  CHECK(access(R_OK | W_OK) == 0);
  CHECK(access(X_OK) == EACCES);
  CHECK(access(8) == EINVAL);
  client.uid = client.gid = 54321;
  CHECK(access(F_OK) == 0);
  CHECK(access(R_OK) == EACCES);
  client.gid = getegid();
  CHECK(access(R_OK) == 0);
  CHECK(access(W_OK) == EACCES);
}
