#include <cerrno>
#include <cstring>
#include <thread>

#include "support/blk_rig.h"

using namespace tsvmm;
using namespace tsvmm::test;
using tsvmm::virtio::Blk;
using tsvmm::virtio::DiskRequest;

TEST_CASE("blk: reads and writes sectors") {
  const std::string content = pattern(64 * 512);
  TempFile file(content);
  FileRig rig(file);

  Answer read = rig.readSectors(3, 1024);
  CHECK(read.status == 0);
  CHECK(read.used == 1025);
  CHECK(read.data == content.substr(3 * 512, 1024));

  const std::string fresh = pattern(512, 'A');
  Answer written = rig.writeSectors(63, fresh);
  CHECK(written.status == 0);
  CHECK(written.used == 1);
  CHECK(file.content() == content.substr(0, 63 * 512) + fresh);
  CHECK(rig.readSectors(63, 512).data == fresh);
  CHECK(rig.blk.metrics.requests == 3);
  CHECK(rig.blk.metrics.bytesRead == 1536);
  CHECK(rig.blk.metrics.bytesWritten == 512);
  CHECK(rig.blk.metrics.errors == 0);
}

TEST_CASE("blk: a MiB in one chain, both ways, and more than is copied at once") {
  for (const uint32_t size : {1u << 20, 3u << 20}) {
    const std::string content = pattern(size);
    TempFile file(std::string(size, '\0'));
    FileRig rig(file);
    std::vector<Buffer> out, in;
    for (uint32_t at = 0; at < size; at += 16384) {
      out.push_back({rig.ram.place(content.data() + at, 16384), 16384, false});
      in.push_back({out.back().address, 16384, true});
    }
    CHECK(rig.request(1, 0, out).status == 0);
    CHECK(file.content() == content);
    for (const Buffer& buffer : in) {
      rig.ram.memory.slice(buffer.address, buffer.length)->fill(0);
    }
    const Answer read = rig.request(0, 0, in);
    CHECK(read.status == 0);
    CHECK(read.used == size + 1);
    CHECK(read.data == content);
  }
}

TEST_CASE("blk: any division into descriptors") {
  TempFile file(pattern(2048));
  FileRig rig(file);
  // The header byte by byte; the status shares a descriptor with the data, which is split at odd places.
  const auto whole = rig.header(0, 1);
  std::vector<Buffer> buffers;
  for (uint32_t i = 0; i < 16; i++) {
    buffers.push_back({whole[0].address + i, 1, false});
  }
  const uint64_t data = rig.ram.alloc(513);
  buffers.push_back({data, 7, true});
  buffers.push_back({data + 7, 0, true});
  buffers.push_back({data + 7, 506, true});
  rig.ring.addIndirect(buffers);
  rig.host.notify(rig.blk, 0);
  CHECK(rig.wait().length == 513);
  CHECK(rig.ram.read(data, 512) == pattern(2048).substr(512, 512));
  CHECK(rig.ram.read(data + 512, 1)[0] == 0);

  // A write whose header and data are one descriptor.
  std::string one = rig.ram.read(rig.header(1, 2)[0].address, 16) + pattern(512, 'Q');
  const uint64_t status = rig.ram.place("\xee", 1);
  rig.ring.add({{rig.ram.place(one.data(), one.size()), 528, false}, {status, 1, true}});
  rig.host.notify(rig.blk, 0);
  CHECK(rig.wait().length == 1);
  CHECK(rig.ram.read(status, 1)[0] == 0);
  CHECK(file.content().substr(1024, 512) == pattern(512, 'Q'));
}

TEST_CASE("blk: capacity and sizes are checked without overflow") {
  TempFile file(pattern(16 * 512));
  FileRig rig(file);
  CHECK(rig.readSectors(15, 512).status == 0);
  CHECK(rig.readSectors(15, 1024).status == 1);
  CHECK(rig.readSectors(16, 512).status == 1);
  CHECK(rig.readSectors(16, 512).used == 1);
  CHECK(rig.readSectors(UINT64_MAX, 512).status == 1);
  CHECK(rig.readSectors(UINT64_MAX / 512 + 1, 512).status == 1);
  CHECK(rig.readSectors((uint64_t{1} << 55) + 1, 512).status == 1);
  CHECK(rig.writeSectors(UINT64_MAX - 1, std::string(1024, 'x')).status == 1);
  CHECK(rig.readSectors(0, 511).status == 1);
  CHECK(rig.readSectors(0, 513).status == 1);
  CHECK(rig.writeSectors(0, std::string(100, 'x')).status == 1);
  CHECK(file.content() == pattern(16 * 512));
  // Nothing asked, nothing done.
  CHECK(rig.request(0, 16, {}).status == 0);
  CHECK(rig.request(1, 0, {}).status == 0);
  CHECK(rig.blk.metrics.errors == 10);
}

TEST_CASE("blk: flush, id, unknown types") {
  TempFile file(pattern(1024));
  FileRig rig(file);
  CHECK(rig.request(4, 0, {}).status == 0);

  const uint64_t id = rig.ram.alloc(64);
  rig.ram.memory.slice(id, 64)->fill(0x55);
  Answer answer = rig.request(8, 0, {{id, 20, true}});
  CHECK(answer.status == 0);
  CHECK(answer.used == 21);
  CHECK(answer.data == std::string("a disk's id") + std::string(9, '\0'));
  CHECK(rig.ram.read(id + 20, 1)[0] == 0x55);
  CHECK(rig.request(8, 0, {{id, 19, true}}).status == 1);

  for (const uint32_t type : {2u, 3u, 5u, 6u, 10u, 12u, 14u, 0xffffffffu}) {
    Answer unknown = rig.request(type, 0, {{id, 64, true}});
    CHECK(unknown.status == 2);
    CHECK(unknown.used == 1);
  }
}

TEST_CASE("blk: discard makes holes, write zeroes makes zeros") {
  TempFile file(pattern(256 * 512));
  FileRig rig(file);
  const uint64_t before = file.blocks();
  CHECK(rig.segments(11, {{0, 64, 0}, {128, 64, 0}}).status == 0);
  CHECK(file.blocks() <= before);
  CHECK(file.content().size() == 256 * 512);
  CHECK(file.content().substr(64 * 512, 64 * 512) == pattern(256 * 512).substr(64 * 512, 64 * 512));

  CHECK(rig.segments(13, {{64, 1, 0}, {66, 1, 1}}).status == 0);
  const std::string now = file.content();
  CHECK(now.substr(64 * 512, 512) == std::string(512, '\0'));
  CHECK(now.substr(65 * 512, 512) == pattern(256 * 512).substr(65 * 512, 512));
  CHECK(now.substr(66 * 512, 512) == std::string(512, '\0'));

  CHECK(rig.segments(13, {{0, 0, 0}}).status == 0);
  CHECK(rig.segments(11, {{256, 1, 0}}).status == 1);
  CHECK(rig.segments(11, {{UINT64_MAX, 2, 0}}).status == 1);
  CHECK(rig.segments(13, {{255, 2, 0}}).status == 1);
  CHECK(rig.segments(13, {{0, UINT32_MAX, 0}}).status == 1);
  CHECK(rig.segments(11, {{0, 1, 1}}).status == 2);
  CHECK(rig.segments(13, {{0, 1, 2}}).status == 2);
  CHECK(rig.segments(13, std::vector<Segment>(17, {0, 1, 0})).status == 1);
  CHECK(rig.request(11, 0, {}).status == 1);
  CHECK(rig.request(13, 0, {{rig.ram.alloc(24), 24, false}}).status == 1);
  CHECK(file.content() == now);
}

TEST_CASE("blk: what was not negotiated is unsupported") {
  TempFile file(pattern(1024));
  FileRig rig(file, {}, FakeHost::kDefaultFeatures);
  CHECK(rig.segments(11, {{0, 1, 0}}).status == 2);
  CHECK(rig.segments(13, {{0, 1, 0}}).status == 2);
}

TEST_CASE("blk: a read-only disk") {
  const std::string content = pattern(1024);
  TempFile file(content);
  FileRig rig(file, {.readOnly = true});
  CHECK(rig.writeSectors(0, std::string(512, 'x')).status == 1);
  CHECK(rig.segments(11, {{0, 1, 0}}).status == 1);
  CHECK(rig.segments(13, {{0, 1, 0}}).status == 1);
  CHECK(rig.request(4, 0, {}).status == 0);
  CHECK(rig.readSectors(1, 512).data == content.substr(512));
  CHECK(file.content() == content);
}

TEST_CASE("blk: the last sector of a read-only image is filled up with zeros") {
  TempFile file(pattern(1000));
  FileRig rig(file, {.readOnly = true});
  const Answer answer = rig.readSectors(0, 1024);
  CHECK(answer.status == 0);
  CHECK(answer.used == 1025);
  CHECK(answer.data == pattern(1000) + std::string(24, '\0'));
  CHECK(rig.readSectors(1, 512).data == pattern(1000).substr(512) + std::string(24, '\0'));
  CHECK(rig.readSectors(2, 512).status == 1);
}

TEST_CASE("blk: chains without room for a status or without a header") {
  TempFile file(pattern(1024));
  FileRig rig(file);
  // Readable only.
  rig.ring.add(rig.header(4, 0));
  rig.host.notify(rig.blk, 0);
  CHECK(rig.wait().length == 0);
  // A zero-length status.
  auto buffers = rig.header(4, 0);
  buffers.push_back({rig.ram.alloc(1), 0, true});
  rig.ring.add(buffers);
  rig.host.notify(rig.blk, 0);
  CHECK(rig.wait().length == 0);
  // 15 bytes of a header; none at all.
  const uint64_t status = rig.ram.place("\xee", 1);
  auto shortHeader = rig.header(4, 0, 15);
  shortHeader.push_back({status, 1, true});
  rig.ring.add(shortHeader);
  rig.host.notify(rig.blk, 0);
  CHECK(rig.wait().length == 1);
  CHECK(rig.ram.read(status, 1)[0] == 1);
  rig.ring.add({{status, 1, true}});
  rig.host.notify(rig.blk, 0);
  CHECK(rig.wait().length == 1);
  CHECK(rig.host.failures.empty());
}

TEST_CASE("blk: a broken queue fails the device, and requests in flight do no harm") {
  auto control = std::make_shared<HeldDisk::Control>();
  Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16));
  uint64_t status = 0;
  rig.queue(0, 0, {{rig.ram.alloc(512), 512, true}}, status);
  rig.host.notify(rig.blk, 0);
  CHECK(control->held.size() == 1);
  auto bad = rig.header(0, 0);
  bad.push_back({rig.ram.memory.size(), 512, true});
  rig.ring.add(bad);
  rig.host.notify(rig.blk, 0);
  REQUIRE(rig.host.failures.size() == 1);
  CHECK(rig.host.failures[0].find("queue 0: ") == 0);
  rig.host.run([&] { control->finish(control->held[0]); });
}

TEST_CASE("blk: requests finish in any order, each once") {
  auto control = std::make_shared<HeldDisk::Control>();
  Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16));
  uint64_t first = 0, second = 0;
  const uint16_t firstHead = rig.queue(0, 0, {{rig.ram.alloc(512), 512, true}}, first);
  const uint16_t secondHead = rig.queue(4, 0, {}, second);
  rig.host.notify(rig.blk, 0);
  REQUIRE(control->held.size() == 2);
  CHECK(!rig.ring.hasUsed());
  rig.host.run([&] { control->finish(control->held[1]); });
  Used used = rig.wait();
  CHECK(used.head == secondHead);
  CHECK(used.length == 1);
  rig.host.run([&] {
    control->finish(control->held[1]);  // known no more: nothing happens
    control->held[0]->error = ENOSPC;
    control->held[0]->done = 100;
    control->finish(control->held[0]);
  });
  used = rig.wait();
  CHECK(used.head == firstHead);
  CHECK(used.length == 101);
  CHECK(rig.ram.read(first, 1)[0] == 1);
  CHECK(rig.host.logs.at(0).find("No space left on device") != std::string::npos);
  CHECK(!rig.ring.hasUsed());
}

TEST_CASE("blk: without FLUSH each write is durable by itself") {
  for (const bool flush : {true, false}) {
    auto control = std::make_shared<HeldDisk::Control>();
    Rig rig(std::make_unique<HeldDisk>(control), optionsFor(16),
            FakeHost::kDefaultFeatures | (flush ? kFlush : 0));
    uint64_t status = 0;
    rig.queue(1, 0, {{rig.ram.alloc(512), 512, false}}, status);
    rig.host.notify(rig.blk, 0);
    CHECK(control->lastDurable == !flush);
  }
  TempFile file(pattern(1024));
  FileRig rig(file, {}, FakeHost::kDefaultFeatures);
  CHECK(rig.writeSectors(1, std::string(512, 'z')).status == 0);
  CHECK(file.content().substr(512) == std::string(512, 'z'));
}
