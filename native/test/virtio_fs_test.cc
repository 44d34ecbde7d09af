// The virtio-fs device: requests through queues in guest memory.

#include <doctest/doctest.h>

#include "support/fake_host.h"
#include "support/fuse_client.h"
#include "virtio/fs/fs_device.h"

using namespace tsvmm;
using namespace tsvmm::test;

namespace {

std::vector<std::unique_ptr<DriverRing>> twoRings(GuestRam& ram) {
  std::vector<std::unique_ptr<DriverRing>> rings;
  rings.push_back(std::make_unique<DriverRing>(ram, 16));
  rings.push_back(std::make_unique<DriverRing>(ram, 64));
  return rings;
}

/// A driver with both queues.
struct Guest {
  explicit Guest(virtio::fs::FuseOptions options) : device(std::move(options)) { host.activate(device); }
  ~Guest() { host.reset(device); }

  std::string header(uint32_t opcode, uint64_t node, size_t bodySize) {
    fuse_in_header in{};
    in.len = static_cast<uint32_t>(sizeof in + bodySize);
    in.opcode = opcode;
    in.unique = ++unique;
    in.nodeid = node;
    return bytesOf(in);
  }
  /// As after a reset.
  void newRings() {
    for (auto& ring : twoRings(ram)) {
      rings.push_back(std::move(ring));
    }
    host.replaceRings({&highPriority(), &requests()});
  }
  DriverRing& highPriority() { return *rings[rings.size() - 2]; }
  DriverRing& requests() { return *rings[rings.size() - 1]; }
  /// Queues a request; the reply's header and payload have buffers of their own, as Linux does it.
  uint16_t add(DriverRing& ring, const std::string& bytes, uint32_t payload, bool indirect = false) {
    std::vector<Buffer> buffers;
    buffers.push_back({ram.place(bytes.data(), 40), 40, false});
    if (bytes.size() > 40) {
      const auto size = static_cast<uint32_t>(bytes.size() - 40);
      buffers.push_back({ram.place(bytes.data() + 40, size), size, false});
    }
    replyHeader = ram.alloc(16);
    replyPayload = ram.alloc(payload + 1);
    buffers.push_back({replyHeader, 16, true});
    if (payload != 0) {
      buffers.push_back({replyPayload, payload, true});
    }
    return indirect ? ring.addIndirect(buffers) : ring.add(buffers);
  }
  Used wait(DriverRing& ring) {
    REQUIRE(host.waitUntil([&] { return ring.hasUsed(); }));
    return ring.takeUsed().value();
  }
  FuseReply call(uint32_t opcode, uint64_t node, const std::string& body, uint32_t payload = 256,
                 bool indirect = false) {
    const uint16_t head = add(requests(), header(opcode, node, body.size()) + body, payload, indirect);
    host.notify(device, 1);
    const Used used = wait(requests());
    CHECK(used.head == head);
    REQUIRE(used.length >= 16);
    const auto out = ram.memory.read<fuse_out_header>(replyHeader).value();
    CHECK(out.len == used.length);
    CHECK(out.unique == unique);
    return {true, -out.error, ram.read(replyPayload, used.length - 16)};
  }
  void init() {
    fuse_init_in in{};
    in.major = 7;
    in.minor = 38;
    in.flags = ~0u;
    REQUIRE(call(FUSE_INIT, 0, bytesOf(in)).error == 0);
  }

  GuestRam ram{64 << 20};
  std::vector<std::unique_ptr<DriverRing>> rings = twoRings(ram);
  FakeHost host{ram, {rings[0].get(), rings[1].get()}};
  virtio::fs::FsDevice device;
  uint64_t unique = 0;
  uint64_t replyHeader = 0;
  uint64_t replyPayload = 0;
};

}  // namespace

TEST_CASE("virtio-fs: a file is looked up, opened, read, written and forgotten") {
  TempFolder folder;
  std::string content(300'000, '\0');
  for (size_t i = 0; i < content.size(); i++) {
    content[i] = static_cast<char>(i * 7 + i / 251);
  }
  writeFile(folder / "a", content);
  Guest guest({.directory = folder.share()});
  guest.init();
  const auto entry = guest.call(FUSE_LOOKUP, 1, zeroTerminated("a")).as<fuse_entry_out>();
  CHECK(entry.attr.size == content.size());
  const auto fh =
      guest.call(FUSE_OPEN, entry.nodeid, bytesOf(fuse_open_in{O_RDWR, 0})).as<fuse_open_out>().fh;
  for (const bool indirect : {false, true}) {
    fuse_read_in in{};
    in.fh = fh;
    in.offset = 10;
    in.size = 200'000;
    CHECK((guest.call(FUSE_READ, entry.nodeid, bytesOf(in), 200'000, indirect).payload ==
           content.substr(10, 200'000)));
  }
  fuse_write_in write{};
  write.fh = fh;
  write.offset = 100;
  write.size = 5;
  CHECK(guest.call(FUSE_WRITE, entry.nodeid, bytesOf(write) + "hello").as<fuse_write_out>().size == 5);
  CHECK(readFile(folder / "a").substr(100, 5) == "hello");
  CHECK(guest.device.metrics.bytesRead == 400'000);
  CHECK(guest.device.metrics.bytesWritten == 5);
  CHECK(guest.device.metrics.errors == 0);

  // FORGET has no reply, and no writable part.
  const std::string forget = guest.header(FUSE_FORGET, entry.nodeid, 8) + bytesOf(fuse_forget_in{1});
  guest.highPriority().add(
      {{guest.ram.place(forget.data(), forget.size()), static_cast<uint32_t>(forget.size())}});
  guest.host.notify(guest.device, 0);
  CHECK(guest.wait(guest.highPriority()).length == 0);
  CHECK(guest.call(FUSE_GETATTR, entry.nodeid, bytesOf(fuse_getattr_in{})).error == ESTALE);
  CHECK(guest.device.metrics.errors == 1);
  CHECK(guest.host.interrupts(1) > 0);
}

TEST_CASE("virtio-fs: many requests at once, also such as are answered later") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  Guest guest({.directory = folder.share()});
  guest.init();
  const auto node = guest.call(FUSE_LOOKUP, 1, zeroTerminated("a")).as<fuse_entry_out>().nodeid;
  const auto fh = guest.call(FUSE_OPEN, node, bytesOf(fuse_open_in{O_RDWR, 0})).as<fuse_open_out>().fh;
  std::set<uint16_t> heads;
  for (int i = 0; i < 30; i++) {
    const bool sync = i % 3 == 0;
    const std::string body = sync ? bytesOf(fuse_fsync_in{fh, 0, 0}) : bytesOf(fuse_getattr_in{});
    heads.insert(guest.add(guest.requests(),
                           guest.header(sync ? FUSE_FSYNC : FUSE_GETATTR, node, body.size()) + body, 256,
                           true));
  }
  guest.host.notify(guest.device, 1);
  while (!heads.empty()) {
    const Used used = guest.wait(guest.requests());
    CHECK(heads.erase(used.head) == 1);
    CHECK(used.length >= 16);
  }
}

TEST_CASE("virtio-fs: forgetting interrupts the driver late, and for many at once") {
  TempFolder folder;
  writeFile(folder / "a", "");
  Guest guest({.directory = folder.share()});
  guest.init();
  const auto forget = [&] {
    guest.add(guest.highPriority(), guest.header(FUSE_FORGET, 2, 8) + bytesOf(fuse_forget_in{1}), 0);
  };
  for (int i = 0; i < 3; i++) {
    forget();
  }
  guest.host.notify(guest.device, 0);
  for (int i = 0; i < 3; i++) {
    guest.wait(guest.highPriority());
  }
  REQUIRE(guest.host.waitUntil([&] { return guest.host.interrupts(0) == 1; }));
  // Pausing leaves nothing untold.
  forget();
  guest.host.notify(guest.device, 0);
  guest.host.run([&] { guest.device.pause([] {}); });
  CHECK(guest.host.interrupts(0) == 2);
  guest.host.run([&] { guest.device.resume(); });
  // A reply is told at once on this queue too.
  guest.add(guest.highPriority(), guest.header(FUSE_GETATTR, 1, 16) + bytesOf(fuse_getattr_in{}), 256);
  guest.host.notify(guest.device, 0);
  CHECK(guest.host.interrupts(0) == 3);
}

TEST_CASE("virtio-fs: a request too short to be one comes back empty") {
  TempFolder folder;
  Guest guest({.directory = folder.share()});
  guest.init();
  guest.requests().add({{guest.ram.alloc(64), 39, false}, {guest.ram.alloc(64), 64, true}});
  guest.requests().add({{guest.ram.alloc(64), 64, true}});
  guest.host.notify(guest.device, 1);
  CHECK(guest.wait(guest.requests()).length == 0);
  CHECK(guest.wait(guest.requests()).length == 0);
}

TEST_CASE("virtio-fs: a reset with work under way touches guest memory no more") {
  TempFolder folder;
  writeFile(folder / "a", "x");
  const size_t before = openDescriptors();
  {
    Guest guest({.directory = folder.share(), .hostLocks = true});
    for (int round = 0; round < 3; round++) {
      guest.init();
      const auto node = guest.call(FUSE_LOOKUP, 1, zeroTerminated("a")).as<fuse_entry_out>().nodeid;
      const auto fh = guest.call(FUSE_OPEN, node, bytesOf(fuse_open_in{O_RDWR, 0})).as<fuse_open_out>().fh;
      fuse_lk_in lock{};
      lock.fh = fh;
      lock.owner = 1;
      lock.lk = {0, 1, F_WRLCK, 1};
      CHECK(guest.call(FUSE_SETLK, node, bytesOf(lock)).error == 0);
      lock.owner = 2;
      guest.add(guest.requests(), guest.header(FUSE_SETLKW, node, sizeof lock) + bytesOf(lock), 0);
      const std::string sync = bytesOf(fuse_fsync_in{fh, 0, 0});
      for (int i = 0; i < 10; i++) {
        guest.add(guest.requests(), guest.header(FUSE_FSYNC, node, sync.size()) + sync, 0, true);
      }
      guest.host.run([&] {
        guest.device.notify(1);
        guest.device.reset();
      });
      guest.newRings();
      guest.host.activate(guest.device);
      CHECK_FALSE(guest.requests().hasUsed());
    }
  }
  CHECK(openDescriptors() <= before);
}

TEST_CASE("virtio-fs: a queue that breaks the rules stops the device") {
  TempFolder folder;
  Guest guest({.directory = folder.share()});
  guest.init();
  guest.requests().writeDescriptor(0, ~uint64_t{0} - 10, 100, 0, 0);
  guest.requests().pushAvailable(0);
  guest.host.notify(guest.device, 1);
  CHECK(guest.host.failures.size() == 1);
  guest.host.notify(guest.device, 1);
  CHECK(guest.host.failures.size() == 1);
}

TEST_CASE("virtio-fs: a folder that cannot be opened is named") {
  CHECK_THROWS_WITH_AS(virtio::fs::FsDevice({.directory = "/nonexistent/folder"}),
                       "/nonexistent/folder: No such file or directory", std::system_error);
}
