#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "virtio/fs/fuse_server.h"

/// The guest's side of FUSE, for tests: requests as bytes, replies as they come.
namespace tsvmm::test {

/// Gives the owner every right to a folder and all folders below it.
inline void openUp(const std::filesystem::path& folder) {
  chmod(folder.c_str(), 0700);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_directory() && !entry.is_symlink()) {
      openUp(entry.path());
    }
  }
}

/// A folder of the host that goes with the test.
class TempFolder {
 public:
  explicit TempFolder(const std::filesystem::path& in = std::filesystem::temp_directory_path()) {
    std::string name = (in / "tsvmm-fs-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("mkdtemp");
    }
    path_ = name;
    std::filesystem::create_directory(share());
  }
  ~TempFolder() {
    openUp(path_);
    std::filesystem::remove_all(path_);
  }
  /// What is shared.
  std::string share() const { return path_ + "/share"; }
  std::string operator/(const std::string& name) const { return share() + "/" + name; }
  /// Beside the share: what no guest may reach.
  std::string outside(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline void writeFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}
inline std::string readFile(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}
inline size_t openDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count++;
  }
  return count;
}

struct FuseReply {
  bool given = false;  ///< whether anything was written
  int error = 0;       ///< positive
  std::string payload;

  template <typename T>
  T as(size_t offset = 0) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (payload.size() < offset + sizeof value) {
      throw std::runtime_error("the reply is too short: " + std::to_string(payload.size()));
    }
    std::memcpy(&value, payload.data() + offset, sizeof value);
    return value;
  }
};

template <typename T>
std::string bytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
inline std::string zeroTerminated(const std::string& text) { return text + '\0'; }

/// A mounted file system: a server on an I/O thread of its own.
class FuseClient {
 public:
  static constexpr uint64_t kRoot = 1;

  explicit FuseClient(virtio::fs::FuseOptions options, bool initialise = true) : server_(std::move(options)) {
    loop_.start();
    loop_.call([&] {
      server_.attach(loop_, [this](uint64_t ticket, uint32_t written, bool) {
        std::lock_guard lock(mutex_);
        completed_[ticket] = written;
        condition_.notify_all();
      });
    });
    if (initialise) {
      init();
    }
  }
  ~FuseClient() {
    loop_.call([&] { server_.detach(); });
    loop_.stop();
  }

  virtio::fs::FuseServer& server() { return server_; }
  EventLoop& loop() { return loop_; }
  uid_t uid = 0;
  gid_t gid = 0;

  /// A request that has been handed over.
  struct Sent {
    uint64_t ticket = 0;
    uint64_t unique = 0;
    std::vector<char> in;
    std::vector<char> out;
    virtio::fs::FuseServer::Outcome outcome;
  };

  std::string header(uint32_t opcode, uint64_t node, size_t bodySize) {
    fuse_in_header in{};
    in.len = static_cast<uint32_t>(sizeof in + bodySize);
    in.opcode = opcode;
    in.unique = ++unique_;
    in.nodeid = node;
    in.uid = uid;
    in.gid = gid;
    return bytesOf(in);
  }

  /// Hands raw bytes over, cut into pieces of `piece` bytes (0: one piece).
  std::unique_ptr<Sent> sendRaw(const std::string& bytes, size_t outSize, size_t piece = 0) {
    auto sent = std::make_unique<Sent>();
    sent->ticket = ++ticket_;
    sent->unique = unique_;
    sent->in.assign(bytes.begin(), bytes.end());
    sent->out.assign(outSize, '\xee');
    std::vector<iovec> in = cut(sent->in, piece);
    std::vector<iovec> out = cut(sent->out, piece);
    loop_.call([&] { sent->outcome = server_.handle(in, out, sent->ticket); });
    return sent;
  }
  std::unique_ptr<Sent> send(uint32_t opcode, uint64_t node, const std::string& body, size_t outSize = 4096) {
    return sendRaw(header(opcode, node, body.size()) + body, sizeof(fuse_out_header) + outSize);
  }
  bool done(const Sent& sent) {
    std::lock_guard lock(mutex_);
    return !sent.outcome.pending || completed_.count(sent.ticket) != 0;
  }
  FuseReply receive(const Sent& sent) {
    uint32_t written = sent.outcome.written;
    if (sent.outcome.pending) {
      std::unique_lock lock(mutex_);
      condition_.wait(lock, [&] { return completed_.count(sent.ticket) != 0; });
      written = completed_[sent.ticket];
    }
    FuseReply reply;
    if (written == 0) {
      return reply;
    }
    fuse_out_header out;
    if (written < sizeof out || written > sent.out.size()) {
      throw std::runtime_error("impossible length of a reply: " + std::to_string(written));
    }
    std::memcpy(&out, sent.out.data(), sizeof out);
    if (out.len != written || out.error > 0 || (out.error != 0 && written != sizeof out)) {
      throw std::runtime_error("malformed reply");
    }
    reply.given = true;
    reply.error = -out.error;
    reply.payload.assign(sent.out.data() + sizeof out, written - sizeof out);
    return reply;
  }
  FuseReply call(uint32_t opcode, uint64_t node, const std::string& body, size_t outSize = 4096) {
    return receive(*send(opcode, node, body, outSize));
  }

  // The operations as a kernel sends them.

  FuseReply init(uint32_t flags = 0xffffffff & ~FUSE_INIT_EXT, uint32_t minor = 38) {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = minor;
    in.max_readahead = 1 << 17;
    in.flags = flags;
    return call(FUSE_INIT, 0, bytesOf(in));
  }
  FuseReply lookup(uint64_t parent, const std::string& name) {
    return call(FUSE_LOOKUP, parent, zeroTerminated(name));
  }
  /// The node id of a name that must be there.
  uint64_t node(uint64_t parent, const std::string& name) {
    const FuseReply reply = lookup(parent, name);
    if (reply.error != 0) {
      throw std::runtime_error(name + ": " + std::strerror(reply.error));
    }
    return reply.as<fuse_entry_out>().nodeid;
  }
  void forget(uint64_t node, uint64_t count = 1) {
    call(FUSE_FORGET, node, bytesOf(fuse_forget_in{count}), 0);
  }
  FuseReply getattr(uint64_t node) { return call(FUSE_GETATTR, node, bytesOf(fuse_getattr_in{})); }
  fuse_attr attributes(uint64_t node) { return getattr(node).as<fuse_attr_out>().attr; }
  FuseReply setattr(uint64_t node, const fuse_setattr_in& in) {
    return call(FUSE_SETATTR, node, bytesOf(in));
  }
  FuseReply create(uint64_t parent, const std::string& name, uint32_t flags = O_RDWR, uint32_t mode = 0644) {
    return call(FUSE_CREATE, parent,
                bytesOf(fuse_create_in{flags | O_CREAT, mode | S_IFREG, 0, 0}) + zeroTerminated(name));
  }
  FuseReply mkdir(uint64_t parent, const std::string& name, uint32_t mode = 0755) {
    return call(FUSE_MKDIR, parent, bytesOf(fuse_mkdir_in{mode, 0}) + zeroTerminated(name));
  }
  FuseReply mknod(uint64_t parent, const std::string& name, uint32_t mode, uint32_t device = 0) {
    return call(FUSE_MKNOD, parent, bytesOf(fuse_mknod_in{mode, device, 0, 0}) + zeroTerminated(name));
  }
  FuseReply symlink(uint64_t parent, const std::string& name, const std::string& target) {
    return call(FUSE_SYMLINK, parent, zeroTerminated(name) + zeroTerminated(target));
  }
  FuseReply unlink(uint64_t parent, const std::string& name) {
    return call(FUSE_UNLINK, parent, zeroTerminated(name));
  }
  FuseReply rmdir(uint64_t parent, const std::string& name) {
    return call(FUSE_RMDIR, parent, zeroTerminated(name));
  }
  FuseReply link(uint64_t node, uint64_t parent, const std::string& name) {
    return call(FUSE_LINK, parent, bytesOf(fuse_link_in{node}) + zeroTerminated(name));
  }
  FuseReply rename(uint64_t from, const std::string& name, uint64_t to, const std::string& newName,
                   uint32_t flags = 0) {
    return call(FUSE_RENAME2, from,
                bytesOf(fuse_rename2_in{to, flags, 0}) + zeroTerminated(name) + zeroTerminated(newName));
  }
  FuseReply open(uint64_t node, uint32_t flags) {
    return call(FUSE_OPEN, node, bytesOf(fuse_open_in{flags, 0}));
  }
  uint64_t opened(uint64_t node, uint32_t flags) {
    const FuseReply reply = open(node, flags);
    if (reply.error != 0) {
      throw std::runtime_error(std::string("open: ") + std::strerror(reply.error));
    }
    return reply.as<fuse_open_out>().fh;
  }
  FuseReply read(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size) {
    fuse_read_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = size;
    return call(FUSE_READ, node, bytesOf(in), size);
  }
  FuseReply write(uint64_t node, uint64_t fh, uint64_t offset, const std::string& data, uint32_t flags = 0,
                  uint32_t writeFlags = 0) {
    fuse_write_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = static_cast<uint32_t>(data.size());
    in.flags = flags;
    in.write_flags = writeFlags;
    return call(FUSE_WRITE, node, bytesOf(in) + data);
  }
  FuseReply release(uint64_t node, uint64_t fh) {
    fuse_release_in in{};
    in.fh = fh;
    return call(FUSE_RELEASE, node, bytesOf(in));
  }
  uint64_t openedDirectory(uint64_t node) {
    return call(FUSE_OPENDIR, node, bytesOf(fuse_open_in{O_RDONLY | O_DIRECTORY, 0})).as<fuse_open_out>().fh;
  }
  FuseReply readdir(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size, bool plus = false) {
    fuse_read_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = size;
    return call(plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, bytesOf(in), size);
  }
  FuseReply releasedir(uint64_t node, uint64_t fh) {
    fuse_release_in in{};
    in.fh = fh;
    return call(FUSE_RELEASEDIR, node, bytesOf(in));
  }
  FuseReply lock(uint32_t opcode, uint64_t node, uint64_t fh, uint64_t owner, uint32_t type, uint64_t start,
                 uint64_t end, uint32_t lockFlags = 0) {
    return receive(*sendLock(opcode, node, fh, owner, type, start, end, lockFlags));
  }
  std::unique_ptr<Sent> sendLock(uint32_t opcode, uint64_t node, uint64_t fh, uint64_t owner, uint32_t type,
                                 uint64_t start, uint64_t end, uint32_t lockFlags = 0) {
    fuse_lk_in in{};
    in.fh = fh;
    in.owner = owner;
    in.lk = {start, end, type, 1};
    in.lk_flags = lockFlags;
    return send(opcode, node, bytesOf(in));
  }

 private:
  static std::vector<iovec> cut(std::vector<char>& bytes, size_t piece) {
    std::vector<iovec> pieces;
    if (piece == 0) {
      piece = bytes.size();
    }
    for (size_t at = 0; at < bytes.size(); at += piece) {
      pieces.push_back({bytes.data() + at, std::min(piece, bytes.size() - at)});
    }
    return pieces;
  }

  virtio::fs::FuseServer server_;
  EventLoop loop_;
  std::mutex mutex_;
  std::condition_variable condition_;
  std::map<uint64_t, uint32_t> completed_;
  uint64_t unique_ = 0;
  uint64_t ticket_ = 0;
};

struct DirectoryEntry {
  std::string name;
  uint64_t node = 0;
  uint32_t type = 0;
};

/// All entries of a folder, read in replies of `size` bytes.
inline std::vector<DirectoryEntry> listFolder(FuseClient& client, uint64_t node, uint32_t size, bool plus) {
  std::vector<DirectoryEntry> entries;
  const uint64_t fh = client.openedDirectory(node);
  uint64_t offset = 0;
  while (true) {
    const FuseReply reply = client.readdir(node, fh, offset, size, plus);
    if (reply.error != 0) {
      throw std::runtime_error(std::string("readdir: ") + std::strerror(reply.error));
    }
    if (reply.payload.empty()) {
      break;
    }
    for (size_t at = 0; at < reply.payload.size();) {
      const size_t start = at + (plus ? offsetof(fuse_direntplus, dirent) : 0);
      const auto entry = reply.as<fuse_dirent>(start);
      const uint64_t child = plus ? reply.as<fuse_entry_out>(at).nodeid : 0;
      entries.push_back(
          {reply.payload.substr(start + offsetof(fuse_dirent, name), entry.namelen), child, entry.type});
      offset = entry.off;
      at = start + FUSE_DIRENT_ALIGN(offsetof(fuse_dirent, name) + entry.namelen);
      at = plus ? (at + 7) & ~size_t{7} : at;
    }
  }
  client.releasedir(node, fh);
  return entries;
}

}  // namespace tsvmm::test
