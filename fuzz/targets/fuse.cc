// The FUSE server (native/virtio/fs): requests with a good header or a wild one, on a folder with a few
// files. Beside the folder lies what no guest may reach.
#include <sys/resource.h>

#include <csignal>

#include "support/fuse_client.h"
#include "support/input.h"

using namespace tsvmm;
using namespace tsvmm::virtio::fs;

namespace {

constexpr size_t kRequest = 1 << 16;
constexpr size_t kReply = 1 << 16;
const char* const kNames[] = {"file", "folder", "link", "up", "new", ".", "..", "a/b", "", "folder/inner"};

struct Rig {
  Rig() {
    // Files of any size may be asked for; the disk is not the guest's to fill.
    const rlimit limit{1 << 20, 1 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);
    loop.start();
  }
  EventLoop loop;
  std::vector<uint8_t> request = std::vector<uint8_t>(kRequest);
  std::vector<uint8_t> reply = std::vector<uint8_t>(kReply);
};

void populate(const test::TempFolder& folder) {
  test::writeFile(folder.outside("secret"), "secret");
  test::writeFile(folder / "file", "content");
  std::filesystem::create_directory(folder / "folder");
  test::writeFile(folder / "folder/inner", "inner");
  std::filesystem::create_symlink("file", folder / "link");
  std::filesystem::create_symlink("../secret", folder / "up");
}

/// One request; the length of what was put together.
size_t compose(fuzz::Input& input, std::vector<uint8_t>& request, std::vector<uint64_t>& known) {
  const uint8_t shape = input.byte();
  fuse_in_header header{};
  header.opcode = input.byte();
  header.unique = input.byte();
  header.nodeid =
      (shape & 1) != 0 ? input.take<uint64_t>() : known[input.below(static_cast<uint32_t>(known.size()))];
  header.uid = (shape & 2) != 0 ? input.take<uint32_t>() : 0;
  header.pid = 1;
  size_t length = sizeof header;
  const auto body = input.takeBytes(input.below((shape & 4) != 0 ? 8192 : 96));
  std::copy(body.begin(), body.end(), request.begin() + static_cast<long>(length));
  length += body.size();
  for (uint8_t names = (shape >> 3) & 3; names > 0; names--) {
    const std::string name = kNames[input.below(std::size(kNames))];
    std::copy(name.begin(), name.end(), request.begin() + static_cast<long>(length));
    length += name.size();
    request[length++] = 0;
  }
  header.len = (shape & 32) != 0 ? input.take<uint32_t>() : static_cast<uint32_t>(length);
  std::memcpy(request.data(), &header, sizeof header);
  return length;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Rig rig;
  fuzz::Input input(data, size);
  test::TempFolder folder;
  populate(folder);
  FuseOptions options;
  options.directory = folder.share();
  const uint8_t kind = input.byte();
  options.readOnly = (kind & 1) != 0;
  options.cache = static_cast<Cache>((kind >> 1) % 3);
  options.hostLocks = (kind & 8) != 0;
  options.posixAcl = (kind & 16) != 0;
  options.maxPaths = 4;
  if ((kind & 64) != 0) {
    options.exports = {{"a", folder.share(), false}, {"dir", folder.share(), true}};
  }
  FuseServer server(options);
  std::vector<uint64_t> known = {FUSE_ROOT_ID};
  rig.loop.call([&] { server.attach(rig.loop, [](uint64_t, uint32_t, bool) {}); });
  const auto send = [&](size_t length, size_t room, uint64_t ticket) {
    // Two pieces each, so that structures lie across them.
    std::vector<iovec> in = {{rig.request.data(), length / 3},
                             {rig.request.data() + length / 3, length - length / 3}};
    std::vector<iovec> out = {{rig.reply.data(), room / 5}, {rig.reply.data() + room / 5, room - room / 5}};
    FuseServer::Outcome outcome;
    rig.loop.call([&] { outcome = server.handle(in, out, ticket); });
    if (outcome.written > room) {
      __builtin_trap();
    }
    return outcome;
  };
  if ((kind & 32) == 0) {
    fuse_in_header header{};
    fuse_init_in init{};
    header.opcode = FUSE_INIT;
    header.len = sizeof header + sizeof init;
    init.major = FUSE_KERNEL_VERSION;
    init.minor = FUSE_KERNEL_MINOR_VERSION;
    init.flags = ~0u;
    std::memcpy(rig.request.data(), &header, sizeof header);
    std::memcpy(rig.request.data() + sizeof header, &init, sizeof init);
    send(header.len, 4096, 0);
  }
  for (uint64_t ticket = 1; ticket < 64 && !input.done(); ticket++) {
    const size_t length = compose(input, rig.request, known);
    const size_t room = (input.byte() & 3) != 0 ? kReply : input.below(256);
    const FuseServer::Outcome outcome = send(length, room, ticket);
    fuse_entry_out entry;
    if (!outcome.pending && !outcome.failed && outcome.written >= sizeof(fuse_out_header) + sizeof entry) {
      std::memcpy(&entry, rig.reply.data() + sizeof(fuse_out_header), sizeof entry);
      known.push_back(entry.nodeid);
    }
  }
  rig.loop.call([&] { server.detach(); });
  if (test::readFile(folder.outside("secret")) != "secret") {
    __builtin_trap();
  }
  return 0;
}
