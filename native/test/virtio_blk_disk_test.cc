#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "support/blk_rig.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Blk;
using tsvmm::virtio::DiskRequest;

TEST_CASE("blk: a file that became shorter is an I/O error, and told") {
  TempFile file(pattern(8 * 512));
  FileRig rig(file);
  REQUIRE(ftruncate(file.fd.get(), 1024) == 0);
  const Answer answer = rig.readSectors(1, 1024);
  CHECK(answer.status == 1);
  CHECK(answer.used == 513);  // what was read, and the status
  CHECK(answer.data.substr(0, 512) == pattern(8 * 512).substr(512, 512));
  CHECK(rig.readSectors(4, 512).status == 1);
  REQUIRE(rig.host.logs.size() == 1);
  CHECK(rig.host.logs[0].find("I/O error while reading at byte 1024") == 0);
}

TEST_CASE("blk: opening a disk says what is wrong") {
  const auto message = [](const std::string& path, bool readOnly) {
    try {
      virtio::openDisk(path, {.readOnly = readOnly});
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message("/nonexistent/disk", false) == "disk /nonexistent/disk: there is no such file");
  CHECK(message("/tmp", false).find("disk /tmp: is a folder") == 0);
  CHECK(message("/tmp", true).find("disk /tmp: is a folder") == 0);
  CHECK(message("/dev/null", true).find("is neither a file nor a block device") != std::string::npos);
  TempFile empty("");
  CHECK(message(empty.path, true).find("is empty") != std::string::npos);
  TempFile odd(pattern(700));
  CHECK(message(odd.path, false).find("its 700 bytes are not a whole number of 512-byte sectors") !=
        std::string::npos);
  CHECK(message(odd.path, true).empty());
}

TEST_CASE("blk: one writer or many readers") {
  TempFile file(pattern(1024));
  {
    const auto writer = virtio::openDisk(file.path, {});
    CHECK(writer.locked);
    CHECK_THROWS_WITH(virtio::openDisk(file.path, {}),
                      ("disk " + file.path +
                       ": it is already in use as a disk; a writable disk belongs to one machine at a time")
                          .c_str());
    CHECK_THROWS(virtio::openDisk(file.path, {.readOnly = true}));
  }
  const auto reader = virtio::openDisk(file.path, {.readOnly = true});
  const auto another = virtio::openDisk(file.path, {.readOnly = true});
  CHECK_THROWS(virtio::openDisk(file.path, {}));
}

TEST_CASE("blk: every engine reads, writes, flushes, discards and zeroes") {
  for (const virtio::DiskEngine engine : engines()) {
    for (const bool direct : {false, true}) {
      CAPTURE(static_cast<int>(engine));
      CAPTURE(direct);
      const std::string content = pattern(4 << 20);
      TempFile file(content);
      FileRig rig(file, {.direct = direct, .engine = engine});
      // More than is done at once, in many parts; then small ones, aligned and not.
      std::vector<Buffer> in, out;
      for (uint32_t at = 0; at < 3 << 20; at += 16384) {
        in.push_back({rig.ram.alloc(16384, 4096), 16384, true});
        out.push_back({in.back().address, 16384, false});
      }
      Answer read = rig.request(0, 8, in);
      CHECK(read.status == 0);
      CHECK(read.used == (3 << 20) + 1);
      CHECK(read.data == content.substr(4096, 3 << 20));
      CHECK(rig.request(1, 0, out).status == 0);
      CHECK(rig.request(4, 0, {}).status == 0);
      CHECK(file.content().substr(0, 3 << 20) == content.substr(4096, 3 << 20));
      CHECK(rig.writeSectors(7999, std::string(512, 'u')).status == 0);
      CHECK(rig.readSectors(7999, 512).data == std::string(512, 'u'));
      const uint64_t odd = rig.ram.alloc(1536, 4096) + 1;
      Answer misaligned = rig.request(0, 7999, {{odd, 512, true}});
      CHECK(misaligned.status == 0);
      CHECK(misaligned.data == std::string(512, 'u'));
      CHECK(rig.segments(11, {{0, 8, 0}}).status == 0);
      CHECK(rig.segments(13, {{16, 8, 0}, {32, 8, 1}}).status == 0);
      const std::string now = file.content();
      CHECK(now.substr(16 * 512, 4096) == std::string(4096, '\0'));
      CHECK(now.substr(32 * 512, 4096) == std::string(4096, '\0'));
      CHECK(now.substr(24 * 512, 4096) == content.substr(4096 + 24 * 512, 4096));
      CHECK(rig.host.logs.empty());
    }
  }
}

TEST_CASE("blk: hundreds of requests at once, more than a ring holds") {
  for (const virtio::DiskEngine engine : engines()) {
    CAPTURE(static_cast<int>(engine));
    const std::string content = pattern(1 << 20);
    TempFile file(content);
    GuestRam ram;
    DriverRing ring(ram, 1024);
    FakeHost host(ram, {&ring}, kAllFeatures);
    // Durable writes are never done at once.
    Blk blk(diskOn(file.path, {.engine = engine}), optionsFor(2048));
    host.activate(blk);
    const uint64_t status = ram.alloc(1);
    std::vector<std::string> written(300);
    for (int round = 0; round < 2; round++) {
      for (uint64_t i = 0; i < 300; i++) {
        struct {
          uint32_t type, reserved;
          uint64_t sector;
        } header{round == 0 ? 4u : 1u, 0, i};
        written[i] = std::string(512, static_cast<char>('A' + i % 50));
        std::vector<Buffer> buffers{{ram.place(&header, 16), 16, false}, {status, 1, true}};
        if (round == 1) {
          buffers.insert(buffers.begin() + 1, {ram.place(written[i].data(), 512), 512, false});
        }
        ring.add(buffers);
      }
      host.notify(blk, 0);
      for (int i = 0; i < 300; i++) {
        REQUIRE(host.waitUntil([&] { return ring.hasUsed(); }));
        host.run([&] { CHECK(ring.takeUsed()->length == 1); });
      }
    }
    std::string expected;
    for (const std::string& sector : written) {
      expected += sector;
    }
    CHECK(file.content() == expected + content.substr(expected.size()));
    CHECK(blk.metrics.errors == 0);
    host.reset(blk);
  }
}

TEST_CASE("blk: a file that is truncated while in use is an error for every engine") {
  for (const virtio::DiskEngine engine : engines()) {
    for (const bool direct : {false, true}) {
      TempFile file(pattern(1 << 20));
      FileRig rig(file, {.direct = direct, .engine = engine});
      REQUIRE(ftruncate(file.fd.get(), 8192) == 0);
      const Answer answer = rig.readSectors(8, 8192);
      CHECK(answer.status == 1);
      CHECK(answer.used == 4097);
      CHECK(rig.readSectors(1024, 4096).status == 1);
      CHECK(rig.readSectors(0, 4096).status == 0);
      REQUIRE(!rig.host.logs.empty());
      CHECK(rig.host.logs[0] ==
            "I/O error while reading at byte 8192: the file has become shorter than the disk");
    }
  }
}

TEST_CASE("blk: a write that the host refuses is an error, with what was written told") {
  for (const virtio::DiskEngine engine : engines()) {
    TempFile file(pattern(1 << 20));
    FileRig rig(file, {.engine = engine});
    // A limit on files stands for a full disk: both end a write early, and then with an error. Where the file
    // is longer already, only what would make it longer is refused.
    REQUIRE(ftruncate(file.fd.get(), 8192) == 0);
    struct rlimit before {};
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    struct rlimit limit = before;
    limit.rlim_cur = 16384;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    const Answer partly = rig.writeSectors(24, std::string(8192, 'p'));
    const Answer wholly = rig.writeSectors(64, std::string(512, 'w'));
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK(partly.status == 1);
    CHECK(partly.used == 1);
    CHECK(wholly.status == 1);
    CHECK(rig.blk.metrics.errors == 2);
    REQUIRE(!rig.host.logs.empty());
    CHECK(rig.host.logs[0] == "I/O error while writing at byte 16384: File too large");
    CHECK(rig.writeSectors(64, std::string(512, 'w')).status == 0);
  }
}

TEST_CASE("blk: direct I/O finds its alignment, or says that there is none") {
  TempFile file(pattern(1 << 20));
  const virtio::DiskFile disk = virtio::openDisk(file.path, {.direct = true});
  CHECK(disk.directFd);
  CHECK(disk.alignment >= 512);
  CHECK(disk.blockSize == std::min<uint32_t>(disk.alignment, 4096));
  const virtio::DiskFile again = disk.again();
  CHECK(again.alignment == disk.alignment);
  CHECK(again.blockSize == disk.blockSize);
  CHECK(again.locked);
  // The lock is one with the first's.
  CHECK_THROWS(virtio::openDisk(file.path, {}));
  CHECK(virtio::isOpenAs(disk, file.path));
  CHECK(!virtio::isOpenAs(disk, "/nonexistent"));
}

TEST_CASE("blk: an image that ends inside a sector, by direct I/O") {
  TempFile file(pattern(1000));
  for (const virtio::DiskEngine engine : engines()) {
    FileRig rig(file, {.readOnly = true, .direct = true, .engine = engine});
    CHECK(rig.readSectors(0, 1024).data == pattern(1000) + std::string(24, '\0'));
    CHECK(rig.readSectors(1, 512).data == pattern(1000).substr(512) + std::string(24, '\0'));
    CHECK(rig.readSectors(2, 512).status == 1);
  }
}
