// The virtio-fs device paused, saved and restored, and what may wait for a disk.

#include <doctest/doctest.h>

#include "support/fake_host.h"
#include "support/fuse_client.h"
#include "virtio/fs/fs_device.h"

using namespace tsvmm;
using namespace tsvmm::test;
using virtio::fs::FuseOptions;

namespace {

/// Guest memory and rings that outlive the device that serves them.
struct Guest {
  GuestRam ram{16 << 20};
  DriverRing urgent{ram, 16};
  DriverRing requests{ram, 64};
  uint64_t unique = 0;

  struct Sent {
    uint16_t head;
    uint64_t header;
    uint64_t payload;
  };
  Sent add(uint32_t opcode, uint64_t node, const std::string& body, uint32_t room = 4096) {
    fuse_in_header in{};
    in.len = static_cast<uint32_t>(sizeof in + body.size());
    in.opcode = opcode;
    in.unique = ++unique;
    in.nodeid = node;
    const std::string bytes = bytesOf(in) + body;
    const auto size = static_cast<uint32_t>(bytes.size());
    Sent sent{0, ram.alloc(16), ram.alloc(room)};
    sent.head = requests.add(
        {{ram.place(bytes.data(), size), size, false}, {sent.header, 16, true}, {sent.payload, room, true}});
    return sent;
  }
  FuseReply reply(const Sent& sent, const Used& used) {
    CHECK(used.head == sent.head);
    const auto out = ram.memory.read<fuse_out_header>(sent.header).value();
    CHECK(out.len == used.length);
    return {true, -out.error, ram.read(sent.payload, used.length - 16)};
  }
};

/// A device that serves them.
struct Machine {
  Machine(Guest& guest, const FuseOptions& options)
      : guest(guest), host(guest.ram, {&guest.urgent, &guest.requests}), device(options) {}
  ~Machine() { host.reset(device); }

  FuseReply call(uint32_t opcode, uint64_t node, const std::string& body) {
    const Guest::Sent sent = guest.add(opcode, node, body);
    host.notify(device, 1);
    return receive(sent);
  }
  FuseReply receive(const Guest::Sent& sent) {
    REQUIRE(host.waitUntil([&] { return guest.requests.hasUsed(); }));
    return guest.reply(sent, guest.requests.takeUsed().value());
  }
  void start() {
    host.activate(device);
    fuse_init_in in{};
    in.major = 7;
    in.minor = 38;
    in.flags = ~0u;
    REQUIRE(call(FUSE_INIT, 0, bytesOf(in)).error == 0);
  }
  void pause() {
    bool paused = false;
    host.run([&] { device.pause([&] { paused = true; }); });
    REQUIRE(host.waitUntil([&] { return paused; }));
  }
  Value save() {
    pause();
    Value state;
    host.run([&] { state = device.save(); });
    return state;
  }
  void restore(const Value& state, Machine& from) {
    host.run([&] {
      for (uint16_t i = 0; i < 2; i++) {
        host.queue(i).setState(from.host.queue(i).state());
      }
      device.restore(host, state);
    });
  }
  void resume() {
    host.run([&] { device.resume(); });
    host.notify(device, 0);
    host.notify(device, 1);
  }
  uint64_t node(uint64_t parent, const std::string& name) {
    const FuseReply reply = call(FUSE_LOOKUP, parent, zeroTerminated(name));
    REQUIRE(reply.error == 0);
    return reply.as<fuse_entry_out>().nodeid;
  }
  uint64_t open(uint64_t node, uint32_t flags) {
    const FuseReply reply = call(FUSE_OPEN, node, bytesOf(fuse_open_in{flags, 0}));
    REQUIRE(reply.error == 0);
    return reply.as<fuse_open_out>().fh;
  }
  FuseReply read(uint64_t node, uint64_t fh) {
    fuse_read_in in{};
    in.fh = fh;
    in.size = 4000;
    return call(FUSE_READ, node, bytesOf(in));
  }
  FuseReply write(uint64_t node, uint64_t fh, const std::string& data) {
    fuse_write_in in{};
    in.fh = fh;
    in.size = static_cast<uint32_t>(data.size());
    return call(FUSE_WRITE, node, bytesOf(in) + data);
  }

  Guest& guest;
  FakeHost host;
  virtio::fs::FsDevice device;
};

constexpr uint64_t kRoot = 1;

}  // namespace

TEST_CASE("virtio-fs state: files and folders go on where they stood") {
  TempFolder folder;
  std::filesystem::create_directories(folder / "dir/sub");
  writeFile(folder / "dir/sub/a", "content");
  writeFile(folder / "gone", "gone");
  writeFile(folder / "replaced", "old");
  const FuseOptions options{.directory = folder.share()};
  Guest guest;
  Machine first(guest, options);
  first.start();
  const uint64_t dir = first.node(kRoot, "dir");
  const uint64_t sub = first.node(dir, "sub");
  const uint64_t file = first.node(sub, "a");
  const uint64_t gone = first.node(kRoot, "gone");
  const uint64_t goneHandle = first.open(gone, O_RDWR);
  // Removed while open, and told of twice: places that have been used before.
  CHECK(first.call(FUSE_RELEASE, file, bytesOf(fuse_release_in{first.open(file, O_RDONLY), 0, 0, 0})).error ==
        0);
  const uint64_t handle = first.open(file, O_RDWR);
  const uint64_t folderHandle = first.call(FUSE_OPENDIR, sub, bytesOf(fuse_open_in{})).as<fuse_open_out>().fh;
  CHECK(first.call(FUSE_UNLINK, kRoot, zeroTerminated("gone")).error == 0);
  // The folder moves: the path is that of the moment of saving.
  std::filesystem::rename(folder / "dir", folder / "moved");

  const Value state = first.save();
  // Nothing is served while paused.
  const Guest::Sent kept = guest.add(FUSE_GETATTR, file, bytesOf(fuse_getattr_in{}));
  first.host.notify(first.device, 1);
  CHECK_FALSE(guest.requests.hasUsed());

  Machine second(guest, options);
  second.restore(state, first);
  CHECK_FALSE(guest.requests.hasUsed());
  second.resume();
  CHECK(second.receive(kept).error == 0);
  CHECK(second.write(file, handle, "CON").error == 0);
  CHECK(second.read(file, handle).payload == "CONtent");
  CHECK(readFile(folder / "moved/sub/a") == "CONtent");
  fuse_read_in list{};
  list.fh = folderHandle;
  list.size = 4000;
  CHECK(second.call(FUSE_READDIR, sub, bytesOf(list)).payload.size() > 0);
  CHECK(second.node(sub, "a") == file);
  CHECK(second.call(FUSE_GETATTR, gone, bytesOf(fuse_getattr_in{})).error == ESTALE);
  CHECK(second.read(gone, goneHandle).error == EBADF);
  // New ones get numbers that no old one had.
  writeFile(folder / "new", "");
  const uint64_t fresh = second.node(kRoot, "new");
  for (const uint64_t old : {dir, sub, file, gone}) {
    CHECK(fresh != old);
  }
  const uint64_t freshHandle = second.open(file, O_RDONLY);
  CHECK(freshHandle != handle);
  CHECK(freshHandle != goneHandle);
  // What the guest forgets is gone after the same number of times.
  second.call(FUSE_RELEASE, file, bytesOf(fuse_release_in{handle, 0, 0, 0}));
  CHECK(second.read(file, handle).error == EBADF);
}

TEST_CASE("virtio-fs state: the first device goes on after a resume") {
  TempFolder folder;
  writeFile(folder / "a", "content");
  Guest guest;
  Machine machine(guest, {.directory = folder.share()});
  machine.start();
  const uint64_t file = machine.node(kRoot, "a");
  const uint64_t handle = machine.open(file, O_RDONLY);
  machine.save();
  const Guest::Sent sent = guest.add(FUSE_GETATTR, file, bytesOf(fuse_getattr_in{}));
  machine.resume();
  CHECK(machine.receive(sent).error == 0);
  CHECK(machine.read(file, handle).payload == "content");
}

TEST_CASE("virtio-fs state: pausing waits for what a worker does, not for a lock") {
  TempFolder folder;
  writeFile(folder / "a", std::string(3'000, 'x'));
  const FuseOptions options{.directory = folder.share(), .hostLocks = true};
  Guest guest;
  Machine first(guest, options);
  first.start();
  const uint64_t file = first.node(kRoot, "a");
  const uint64_t handle = first.open(file, O_RDWR);
  const auto lock = [&](uint64_t owner) {
    fuse_lk_in in{};
    in.fh = handle;
    in.owner = owner;
    in.lk = {0, 10, F_WRLCK, 1};
    return bytesOf(in);
  };
  CHECK(first.call(FUSE_SETLK, file, lock(1)).error == 0);
  const Guest::Sent waiting = guest.add(FUSE_SETLKW, file, lock(2));
  std::vector<Guest::Sent> syncs;
  for (int i = 0; i < 20; i++) {
    syncs.push_back(guest.add(FUSE_FSYNC, file, bytesOf(fuse_fsync_in{handle, 0, 0})));
  }
  first.host.notify(first.device, 1);
  const Value state = first.save();
  for (size_t i = 0; i < syncs.size(); i++) {
    REQUIRE(guest.requests.hasUsed());
    guest.requests.takeUsed();
  }
  CHECK_FALSE(guest.requests.hasUsed());
  REQUIRE(state.list("waiting").size() == 1);
  CHECK(state.list("waiting")[0].integer("head") == waiting.head);

  // The first device's lock goes with it; the second's wait is tried anew.
  first.host.reset(first.device);
  Machine second(guest, options);
  second.restore(state, first);
  CHECK_FALSE(guest.requests.hasUsed());
  second.resume();
  CHECK(second.receive(waiting).error == 0);
}

TEST_CASE("virtio-fs state: exports come back by their names") {
  TempFolder folder;
  std::filesystem::create_directory(folder / "data");
  writeFile(folder / "data/a", "content");
  FuseOptions options;
  options.exports = {{"one", folder / "data", false}, {"two", folder / "data", true}};
  Guest guest;
  Machine first(guest, options);
  first.start();
  const uint64_t one = first.node(first.node(kRoot, "one"), "a");
  const uint64_t two = first.node(first.node(kRoot, "two"), "a");
  const Value state = first.save();
  {
    FuseOptions others = options;
    std::swap(others.exports[0], others.exports[1]);
    Machine other(guest, others);
    other.host.run([&] { CHECK_THROWS_AS(other.device.restore(other.host, state), ValueError); });
  }
  Machine second(guest, options);
  second.restore(state, first);
  second.resume();
  CHECK(second.call(FUSE_OPEN, one, bytesOf(fuse_open_in{O_RDWR, 0})).error == 0);
  CHECK(second.call(FUSE_OPEN, two, bytesOf(fuse_open_in{O_RDWR, 0})).error == EROFS);
}

TEST_CASE("virtio-fs state: what is wrong is named, and leaves no session") {
  TempFolder folder;
  writeFile(folder / "a", "content");
  const FuseOptions options{.directory = folder.share()};
  Guest guest;
  Machine first(guest, options);
  first.start();
  first.open(first.node(kRoot, "a"), O_RDONLY);
  const Value state = first.save();
  const auto refuses = [&](const char* field, const Value& value, bool inSession) {
    Value::Record record = *state.asRecord();
    Value::Record session = *state.at("session").asRecord();
    (inSession ? session : record)[field] = value;
    if (inSession) {
      record["session"] = session;
    }
    Machine second(guest, options);
    std::string error;
    second.host.run([&] {
      try {
        second.device.restore(second.host, record);
      } catch (const ValueError& caught) {
        error = caught.what();
      }
    });
    CAPTURE(field);
    CHECK(error.find(field) != std::string::npos);
    CHECK(second.device.server().knownInodes() == 0);
    CHECK_FALSE(second.device.server().attached());
  };
  refuses("version", 2u, false);
  refuses("version", 2u, true);
  refuses("waiting", Value::List{Value::Record{{"queue", 1u}, {"head", 5000u}}}, false);
  refuses("waiting", 7u, false);
  refuses("shares", Value::List{}, true);
  refuses("nodeGenerations", Value::Bytes(7), true);
  Value::List nodes = state.at("session").list("nodes");
  nodes.push_back(nodes.back());
  refuses("nodes", nodes, true);
  Value::List files = state.at("session").list("files");
  files.push_back(files.back());
  refuses("files", files, true);
}
