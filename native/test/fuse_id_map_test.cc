// The FUSE server with a map of ids: privileged, and as an ordinary user, which one thread of this process
// becomes.

#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <stdexcept>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;
using virtio::fs::FuseOptions;
using virtio::fs::IdMap;
using virtio::fs::IdRange;

namespace {

constexpr uint64_t kRoot = FuseClient::kRoot;
constexpr uid_t kUser = 4321;
constexpr gid_t kGroup = 8765;

bool isRoot() { return geteuid() == 0; }

/// Ids 0 to 9 of the guest are 100000 to 100009, 65534 is 200000: 1000 is nobody.
FuseOptions mapped(const TempFolder& folder) {
  FuseOptions options{.directory = folder.share()};
  options.uids = IdMap({{0, 100'000, 10}, {65534, 200'000, 1}});
  options.gids = IdMap({{0, 300'000, 10}});
  return options;
}

/// The guest's root is `user`, as for `tsvmm run` of an ordinary user.
FuseOptions single(const TempFolder& folder, uid_t user = kUser, gid_t group = kGroup) {
  FuseOptions options{.directory = folder.share()};
  options.uids = IdMap({{0, user, 1}});
  options.gids = IdMap({{0, group, 1}});
  return options;
}

/// Takes every right from the client's I/O thread for good. The rest of the process keeps its own.
void becomeUser(FuseClient& client) {
  long failed = 0;
  client.loop().call([&] {
    failed |= syscall(SYS_setgroups, 0, nullptr);
    failed |= syscall(SYS_setresgid, kGroup, kGroup, kGroup);
    failed |= syscall(SYS_setresuid, kUser, kUser, kUser);
  });
  REQUIRE(failed == 0);
}

struct stat statOf(const std::string& path) {
  struct stat attributes {};
  REQUIRE(lstat(path.c_str(), &attributes) == 0);
  return attributes;
}

void give(const std::string& path, uid_t uid, gid_t gid) { REQUIRE(lchown(path.c_str(), uid, gid) == 0); }

FuseReply chownTo(FuseClient& client, uint64_t node, uint32_t valid, uint32_t uid, uint32_t gid) {
  fuse_setattr_in in{};
  in.valid = valid;
  in.uid = uid;
  in.gid = gid;
  return client.setattr(node, in);
}

FuseReply chmodTo(FuseClient& client, uint64_t node, uint32_t mode) {
  fuse_setattr_in in{};
  in.valid = FATTR_MODE;
  in.mode = mode;
  return client.setattr(node, in);
}

FuseReply tmpfileIn(FuseClient& client, uint64_t parent) {
  return client.call(FUSE_TMPFILE, parent, bytesOf(fuse_create_in{O_RDWR, S_IFREG | 0600, 0, 0}));
}

}  // namespace

TEST_CASE("id map: both ways, and what is not in it") {
  const IdMap map({{0, 1000, 1}, {1, 100'000, 65'536}, {4'000'000'000, 0, 10}});
  CHECK(map.toHost(0) == 1000u);
  CHECK(map.toHost(1) == 100'000u);
  CHECK(map.toHost(65'536) == 165'535u);
  CHECK(!map.toHost(65'537));
  CHECK(!map.toHost(UINT32_MAX));
  CHECK(map.toHost(4'000'000'009) == 9u);
  CHECK(map.toGuest(1000) == 0);
  CHECK(map.toGuest(165'535) == 65'536);
  CHECK(map.toGuest(165'536) == IdMap::kOverflow);
  CHECK(map.toGuest(UINT32_MAX) == IdMap::kOverflow);
  CHECK(map.toGuest(9) == 4'000'000'009);
  CHECK(!map.hasHost(10));
  const IdMap none;
  CHECK(none.identity());
  CHECK(none.toHost(77) == 77u);
  CHECK(none.toGuest(77) == 77);
}

TEST_CASE("id map: ranges that cannot be are refused") {
  const auto refused = [](std::vector<IdRange> ranges) {
    CHECK_THROWS_AS(IdMap(std::move(ranges)), std::invalid_argument);
  };
  refused({});
  refused(std::vector<IdRange>(IdMap::kMaxRanges + 1));
  refused({{0, 0, 0}});
  refused({{0, 1, UINT32_MAX}});
  refused({{1, 0, UINT32_MAX}});
  refused({{UINT32_MAX, 0, 1}});
  refused({{0, UINT32_MAX, 1}});
  refused({{0, 1000, 10}, {9, 2000, 1}});
  refused({{0, 1000, 10}, {10, 1009, 1}});
  refused({{5, 1000, 1}, {0, 2000, 10}});
  CHECK(IdMap({{0, 0, UINT32_MAX}}).toHost(UINT32_MAX - 1) == UINT32_MAX - 1);
}

TEST_CASE("fuse id map: owners are translated, whoever made the file") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  give(folder.share(), 100'000, 300'000);
  for (const char* name : {"known", "other", "half"}) {
    writeFile(folder / name, name);
  }
  give(folder / "known", 100'003, 300'004);
  give(folder / "other", 1000, 1000);
  give(folder / "half", 200'000, 0);
  FuseClient client(mapped(folder));

  CHECK(client.attributes(kRoot).uid == 0);
  const auto known = client.lookup(kRoot, "known").as<fuse_entry_out>().attr;
  CHECK(known.uid == 3);
  CHECK(known.gid == 4);
  const auto other = client.attributes(client.node(kRoot, "other"));
  CHECK(other.uid == 65534);
  CHECK(other.gid == 65534);
  const auto half = client.attributes(client.node(kRoot, "half"));
  CHECK(half.uid == 65534);
  CHECK(half.gid == 65534);
  const auto plus = client.readdir(kRoot, client.openedDirectory(kRoot), 0, 4096, true);
  for (size_t at = 0; at < plus.payload.size();) {
    const auto entry = plus.as<fuse_direntplus>(at);
    CHECK(
        (entry.entry_out.nodeid == 0 || entry.entry_out.attr.uid == 3 || entry.entry_out.attr.uid == 65534));
    at += FUSE_DIRENTPLUS_SIZE(&entry);
  }

  client.uid = 7;
  client.gid = 8;
  CHECK(client.create(kRoot, "file").as<fuse_entry_out>().attr.uid == 7);
  CHECK(client.mkdir(kRoot, "folder").as<fuse_entry_out>().attr.gid == 8);
  CHECK(client.symlink(kRoot, "link", "x").error == 0);
  CHECK(client.mknod(kRoot, "pipe", S_IFIFO | 0600).error == 0);
  CHECK(client.mknod(kRoot, "device", S_IFCHR | 0600, 0x103).error == 0);
  for (const char* name : {"file", "folder", "link", "pipe", "device"}) {
    CAPTURE(name);
    CHECK(statOf(folder / name).st_uid == 100'007);
    CHECK(statOf(folder / name).st_gid == 300'008);
  }
  CHECK(tmpfileIn(client, kRoot).as<fuse_entry_out>().attr.uid == 7);
}

TEST_CASE("fuse id map: nobody who is not mapped makes or is given anything") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  writeFile(folder / "known", "x");
  give(folder / "known", 100'003, 300'004);
  FuseClient client(mapped(folder));
  const uint64_t node = client.node(kRoot, "known");
  // A user without, a group without; the numbers of the host are not the guest's; no id at all.
  const std::pair<uint32_t, uint32_t> strangers[] = {
      {1000, 0}, {0, 1000}, {100'000, 0}, {0, 300'000}, {UINT32_MAX, 0}, {0, UINT32_MAX}, {10, 10}};
  for (const auto& [uid, gid] : strangers) {
    CAPTURE(uid);
    CAPTURE(gid);
    client.uid = uid;
    client.gid = gid;
    CHECK(client.create(kRoot, "new").error == EOVERFLOW);
    CHECK(client.mkdir(kRoot, "new").error == EOVERFLOW);
    CHECK(client.symlink(kRoot, "new", "x").error == EOVERFLOW);
    CHECK(client.mknod(kRoot, "new", S_IFREG | 0600).error == EOVERFLOW);
    CHECK(tmpfileIn(client, kRoot).error == EOVERFLOW);
    CHECK(!std::filesystem::exists(folder / "new"));
    CHECK(chownTo(client, node, FATTR_UID | FATTR_GID, uid, gid).error == EINVAL);
  }
  // What exists is opened all the same, as by anybody whom the guest's kernel lets.
  CHECK(client.create(kRoot, "known").error == 0);
  client.uid = client.gid = 0;
  CHECK(chownTo(client, node, FATTR_UID, 1000, 0).error == EINVAL);
  CHECK(chownTo(client, node, FATTR_GID, 0, UINT32_MAX).error == EINVAL);
  CHECK(statOf(folder / "known").st_uid == 100'003);
  CHECK(statOf(folder / "known").st_gid == 300'004);
  CHECK(chownTo(client, node, FATTR_UID, 65534, UINT32_MAX).as<fuse_attr_out>().attr.uid == 65534);
  CHECK(statOf(folder / "known").st_uid == 200'000);
  CHECK(chownTo(client, node, FATTR_UID | FATTR_GID, 9, 9).as<fuse_attr_out>().attr.gid == 9);
  CHECK(statOf(folder / "known").st_gid == 300'009);
}

TEST_CASE("fuse id map: a stranger's file keeps its owner and mode") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  for (const char* name : {"uid", "gid"}) {
    writeFile(folder / name, "x");
    chmod((folder / name).c_str(), 0640);
  }
  give(folder / "uid", 1000, 300'000);
  give(folder / "gid", 100'000, 1000);
  FuseClient client(mapped(folder));
  for (const char* name : {"uid", "gid"}) {
    CAPTURE(name);
    const struct stat before = statOf(folder / name);
    const uint64_t node = client.node(kRoot, name);
    CHECK(chownTo(client, node, FATTR_UID, 0, 0).error == EPERM);
    CHECK(chownTo(client, node, FATTR_GID, 0, 0).error == EPERM);
    CHECK(chmodTo(client, node, 0777).error == EPERM);
    const struct stat after = statOf(folder / name);
    CHECK(before.st_mode == after.st_mode);
    CHECK(before.st_uid == after.st_uid);
    CHECK(before.st_gid == after.st_gid);
  }
}

TEST_CASE("fuse id map: ACCESS asks for the owner in the guest") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  writeFile(folder / "known", "x");
  writeFile(folder / "other", "x");
  chmod((folder / "known").c_str(), 0640);
  chmod((folder / "other").c_str(), 0600);
  give(folder / "known", 100'003, 300'004);
  give(folder / "other", 1000, 1000);
  FuseClient client(mapped(folder));
  const auto may = [&](const char* name, uint32_t uid, uint32_t gid, uint32_t mask) {
    const uint64_t node = client.node(kRoot, name);
    client.uid = uid;
    client.gid = gid;
    return client.call(FUSE_ACCESS, node, bytesOf(fuse_access_in{mask, 0})).error;
  };
  CHECK(may("known", 3, 0, W_OK) == 0);
  CHECK(may("known", 4, 4, R_OK) == 0);
  CHECK(may("known", 4, 4, W_OK) == EACCES);
  CHECK(may("known", 100'003, 0, R_OK) == EACCES);
  CHECK(may("other", 65534, 65534, R_OK) == EACCES);
  CHECK(may("other", 1000, 1000, R_OK) == EACCES);
}

TEST_CASE("fuse id map: an ordinary user's server makes everything as itself and nothing for others") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  give(folder.share(), kUser, kGroup);
  writeFile(folder / "theirs", "secret");
  chmod((folder / "theirs").c_str(), 0600);
  writeFile(folder / "mine", "x");
  give(folder / "mine", kUser, kGroup);
  FuseOptions options = single(folder);
  options.uids = IdMap({{0, kUser, 1}, {1, 100'000, 10}});
  FuseClient client(options, false);
  becomeUser(client);
  REQUIRE(client.init().error == 0);

  const auto made = client.create(kRoot, "file", O_RDWR, 0644);
  REQUIRE(made.error == 0);
  CHECK(made.as<fuse_entry_out>().attr.uid == 0);
  CHECK(made.as<fuse_entry_out>().attr.gid == 0);
  CHECK(client.mkdir(kRoot, "folder").error == 0);
  CHECK(client.symlink(kRoot, "link", "x").error == 0);
  for (const char* name : {"file", "folder", "link"}) {
    CHECK(statOf(folder / name).st_uid == kUser);
    CHECK(statOf(folder / name).st_gid == kGroup);
  }
  CHECK(client.mknod(kRoot, "device", S_IFCHR | 0600, 0x103).error == EPERM);
  CHECK(client.mknod(kRoot, "pipe", S_IFIFO | 0600).error == 0);

  // Mapped, but not the server's to act for; not mapped at all.
  client.uid = 1;
  CHECK(client.create(kRoot, "new").error == EPERM);
  CHECK(client.mkdir(kRoot, "new").error == EPERM);
  client.uid = 0;
  client.gid = 1;
  CHECK(client.create(kRoot, "new").error == EOVERFLOW);
  client.gid = 0;
  CHECK(!std::filesystem::exists(folder / "new"));

  const uint64_t mine = client.node(kRoot, "mine");
  CHECK(chownTo(client, mine, FATTR_UID | FATTR_GID, 0, 0).error == 0);
  CHECK(chownTo(client, mine, FATTR_UID, 1, 0).error == EPERM);
  CHECK(chownTo(client, mine, FATTR_UID, 11, 0).error == EINVAL);
  CHECK(chmodTo(client, mine, 0700).error == 0);
  CHECK(statOf(folder / "mine").st_uid == kUser);

  // The guest's root may do anything in the guest, but on the host it is an ordinary user.
  const uint64_t theirs = client.node(kRoot, "theirs");
  CHECK(client.attributes(theirs).uid == 65534);
  CHECK(client.open(theirs, O_RDONLY).error == EACCES);
  CHECK(chownTo(client, theirs, FATTR_UID, 0, 0).error == EPERM);
  CHECK(chmodTo(client, theirs, 0777).error == EPERM);
  CHECK(readFile(folder / "theirs") == "secret");
}

TEST_CASE("fuse: without a map an ordinary user's server makes everything as itself, for whomever") {
  if (!isRoot()) {
    return;
  }
  TempFolder folder;
  give(folder.share(), kUser, kGroup);
  FuseClient client({.directory = folder.share()}, false);
  becomeUser(client);
  REQUIRE(client.init().error == 0);
  client.uid = 7;
  client.gid = 7;
  CHECK(client.create(kRoot, "file").as<fuse_entry_out>().attr.uid == kUser);
  CHECK(statOf(folder / "file").st_gid == kGroup);
  client.uid = 0;
  CHECK(chownTo(client, client.node(kRoot, "file"), FATTR_UID, 7, 0).error == EPERM);
}
