// Several folders and files of the host under a root of the server's own.

#include <dirent.h>
#include <doctest/doctest.h>

#include "support/fuse_client.h"

using namespace tsvmm;
using namespace tsvmm::test;
using virtio::fs::FuseOptions;

namespace {

constexpr uint64_t kRoot = FuseClient::kRoot;

FuseOptions options(TempFolder& folder) {
  std::filesystem::create_directory(folder / "data");
  std::filesystem::create_directory(folder / "fixed");
  writeFile(folder / "data/file", "data");
  writeFile(folder / "fixed/file", "fixed");
  writeFile(folder / "single", "single");
  FuseOptions options;
  options.exports = {{"rw", folder / "data", false},
                     {"ro", folder / "fixed", true},
                     {"hosts", folder / "single", false},
                     {"const", folder / "single", true}};
  return options;
}

}  // namespace

TEST_CASE("fuse exports: the root has an entry for each and refuses every change") {
  TempFolder folder;
  FuseClient client(options(folder));
  const fuse_attr root = client.attributes(kRoot);
  CHECK(root.mode == (S_IFDIR | 0555));
  for (const bool plus : {false, true}) {
    for (const uint32_t size : {200u, 4096u}) {
      std::vector<std::string> names;
      for (const DirectoryEntry& entry : listFolder(client, kRoot, size, plus)) {
        names.push_back(entry.name);
        CHECK((entry.node != 0) == (plus && entry.name[0] != '.'));
        CHECK(entry.type == (entry.name == "hosts" || entry.name == "const" ? DT_REG : DT_DIR));
      }
      CHECK(names == std::vector<std::string>{".", "..", "rw", "ro", "hosts", "const"});
    }
  }
  const FuseReply absent = client.lookup(kRoot, "absent");
  CHECK(absent.error == 0);
  CHECK(absent.as<fuse_entry_out>().nodeid == 0);
  const uint64_t rw = client.node(kRoot, "rw");
  const uint64_t file = client.node(rw, "file");
  CHECK(client.mkdir(kRoot, "x").error == EROFS);
  CHECK(client.create(kRoot, "x").error == EROFS);
  CHECK(client.mknod(kRoot, "x", S_IFREG | 0600).error == EROFS);
  CHECK(client.symlink(kRoot, "x", "y").error == EROFS);
  CHECK(client.unlink(kRoot, "hosts").error == EROFS);
  CHECK(client.rmdir(kRoot, "rw").error == EROFS);
  CHECK(client.rename(kRoot, "rw", kRoot, "x").error == EROFS);
  CHECK(client.rename(rw, "file", kRoot, "x").error == EROFS);
  CHECK(client.link(file, kRoot, "x").error == EROFS);
  CHECK(client.link(kRoot, rw, "x").error == EROFS);
  CHECK(client.setattr(kRoot, fuse_setattr_in{}).error == EROFS);
  CHECK(client.open(kRoot, O_RDONLY).error == EISDIR);
  CHECK(client.call(FUSE_STATFS, kRoot, "").as<fuse_statfs_out>().st.namelen == NAME_MAX);
  CHECK(client.call(FUSE_LISTXATTR, kRoot, bytesOf(fuse_getxattr_in{100, 0})).error == 0);
  CHECK(client.call(FUSE_ACCESS, kRoot, bytesOf(fuse_access_in{W_OK, 0})).error == EROFS);
  CHECK(client.call(FUSE_READLINK, kRoot, "").error == EINVAL);
  // Other folders' requests with its handle, and the other way round.
  const uint64_t handle = client.openedDirectory(kRoot);
  CHECK(client.readdir(rw, handle, 0, 4096).error != 0);
  CHECK(client.call(FUSE_FSYNCDIR, rw, bytesOf(fuse_fsync_in{handle, 0, 0})).error == EBADF);
  CHECK(client.releasedir(kRoot, handle).error == 0);
}

TEST_CASE("fuse exports: each has its own rights, and nothing passes from one to another") {
  TempFolder folder;
  FuseClient client(options(folder));
  const uint64_t rw = client.node(kRoot, "rw");
  const uint64_t ro = client.node(kRoot, "ro");
  const uint64_t file = client.node(rw, "file");
  const uint64_t fixed = client.node(ro, "file");
  CHECK(client.create(rw, "new").error == 0);
  CHECK(client.create(ro, "new").error == EROFS);
  CHECK(client.mkdir(ro, "d").error == EROFS);
  CHECK(client.unlink(ro, "file").error == EROFS);
  CHECK(client.open(fixed, O_RDWR).error == EROFS);
  CHECK(client.open(fixed, O_RDONLY | O_TRUNC).error == EROFS);
  CHECK(client.call(FUSE_ACCESS, fixed, bytesOf(fuse_access_in{W_OK, 0})).error == EROFS);
  CHECK(client.rename(rw, "file", ro, "moved").error == EXDEV);
  CHECK(client.rename(ro, "file", rw, "moved").error == EROFS);
  CHECK(client.link(file, ro, "x").error == EROFS);
  CHECK(client.link(fixed, rw, "x").error == EXDEV);
  // A handle of the one under the other's name writes to neither.
  const uint64_t handle = client.opened(fixed, O_RDONLY);
  CHECK(client.write(file, handle, 0, "x").error == EBADF);
  CHECK(client.read(fixed, handle, 0, 100).payload == "fixed");
  const uint64_t target = client.opened(file, O_RDWR);
  fuse_copy_file_range_in copy{};
  copy.fh_in = handle;
  copy.nodeid_out = file;
  copy.fh_out = target;
  copy.len = 5;
  CHECK(client.call(FUSE_COPY_FILE_RANGE, fixed, bytesOf(copy)).error == 0);
  CHECK(readFile(folder / "data/file") == "fixed");
  copy.nodeid_out = fixed;
  CHECK(client.call(FUSE_COPY_FILE_RANGE, file, bytesOf(copy)).error == EROFS);
  CHECK(readFile(folder / "fixed/file") == "fixed");
}

TEST_CASE("fuse exports: a single file stays the same when its name is replaced") {
  TempFolder folder;
  FuseClient client(options(folder));
  const uint64_t node = client.node(kRoot, "hosts");
  const uint64_t fixed = client.node(kRoot, "const");
  CHECK(node != fixed);
  writeFile(folder / "other", "other");
  std::filesystem::rename(folder / "other", folder / "single");
  const uint64_t handle = client.opened(node, O_RDWR);
  CHECK(client.read(node, handle, 0, 100).payload == "single");
  CHECK(client.write(node, handle, 0, "S").error == 0);
  CHECK(client.node(kRoot, "hosts") == node);
  CHECK(client.read(fixed, client.opened(fixed, O_RDONLY), 0, 100).payload == "Single");
  CHECK(client.open(fixed, O_WRONLY).error == EROFS);
  CHECK(readFile(folder / "single") == "other");
}

TEST_CASE("fuse exports: the guest forgets none of them") {
  TempFolder folder;
  FuseClient client(options(folder));
  const uint64_t rw = client.node(kRoot, "rw");
  client.forget(rw, 1000);
  client.forget(kRoot, 1000);
  CHECK(client.node(kRoot, "rw") == rw);
  CHECK(client.lookup(rw, "file").error == 0);
  CHECK(client.server().knownInodes() == 6);
  // A new session starts with the same.
  CHECK(client.init().error == 0);
  CHECK(client.server().knownInodes() == 5);
  CHECK(client.node(kRoot, "rw") == rw);
}

TEST_CASE("fuse exports: folders of the guest's own are told apart, files of one folder are not") {
  TempFolder folder;
  FuseOptions twice = options(folder);
  twice.exports.push_back({"again", folder / "data", false});
  FuseClient client(twice);
  const auto entry = client.lookup(kRoot, "rw").as<fuse_entry_out>();
  CHECK((entry.attr.flags & FUSE_ATTR_SUBMOUNT) != 0);
  CHECK(client.node(client.node(kRoot, "again"), "file") != client.node(entry.nodeid, "file"));
  CHECK((client.lookup(kRoot, "hosts").as<fuse_entry_out>().attr.flags & FUSE_ATTR_SUBMOUNT) == 0);
}

TEST_CASE("fuse exports: one that is not there is named") {
  TempFolder folder;
  FuseOptions wrong = options(folder);
  wrong.exports.push_back({"gone", folder / "gone", false});
  try {
    const FuseClient client(wrong);
    FAIL("accepted");
  } catch (const std::system_error& error) {
    CHECK(std::string(error.what()).find("gone") != std::string::npos);
  }
}
