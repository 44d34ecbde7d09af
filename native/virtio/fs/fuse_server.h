#pragma once

#include <sys/stat.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/event_loop.h"
#include "io/value.h"
#include "io/worker_pool.h"
#include "virtio/fs/file_table.h"
#include "virtio/fs/id_map.h"
#include "virtio/fs/inode_table.h"
#include "virtio/fs/lock_table.h"
#include "virtio/fs/request.h"

namespace tsvmm::virtio::fs {

/// How long and what the guest may keep without asking again.
enum class Cache {
  kNone,    ///< names and attributes are asked for each time; a file's pages live until it is opened again or
            ///< changes
  kAuto,    ///< names and attributes for 1 s; pages as long as modification time and size stay the same
  kAlways,  ///< for a folder that only this guest changes: everything, absent names included, for a day
};

/// A folder or file of the host that appears under a name in the root of a share.
struct FuseExport {
  std::string name;  ///< 1 to 255 bytes without a slash, not `.` or `..`, each once
  std::string path;  ///< a folder, or a file of any other kind; a symbolic link is followed
  bool readOnly = false;
};

struct FuseOptions {
  std::string directory;              ///< the folder of the host that is the root
  bool readOnly = false;              ///< every change gets EROFS
  std::vector<FuseExport> exports{};  ///< instead of `directory`: what a root of the server's own consists of
  Cache cache = Cache::kAuto;
  bool writeback =
      false;  ///< the guest collects writes and owns size and modification time; for Cache::kAlways only
  bool hostLocks =
      false;  ///< fcntl() and flock() locks are taken on the host's files, so that others see them
  bool posixAcl = false;  ///< access control lists are enforced by the guest and stored on the host
  IdMap uids{};           ///< not together with posixAcl: lists hold ids, too
  IdMap gids{};
  size_t maxPaths =
      0;  ///< O_PATH descriptors held before file handles are used; 0: half of the process's budget
};

/// A FUSE file system (protocol 7.38) that passes a folder of the host through. Knows requests as scattered
/// bytes and nothing of queues. A guest gets nowhere but into the folder and the mounts below it: each name
/// is looked up alone, relative to an O_PATH descriptor, and no symbolic link is ever followed on the host;
/// only regular files and folders are ever opened. Access is checked by the guest's kernel (virtio-fs mounts
/// have default_permissions); the server acts with its own rights and, where it is root, gives what is
/// created to the requester.
class FuseServer {
 public:
  static constexpr uint32_t kMaxWrite = 1 << 20;  ///< bytes a WRITE or READ may carry

  /// Tells that a request that was pending has been answered: the reply's length, and whether it is an error.
  /// On the loop.
  using Completion = std::function<void(uint64_t ticket, uint32_t written, bool failed)>;
  struct Outcome {
    bool pending = false;  ///< the reply's memory must stay as it is until the completion
    uint32_t written = 0;  ///< the reply's length; 0 for requests that have no reply
    bool failed = false;   ///< the reply is an error
  };

  /// Throws std::system_error if the folder cannot be opened.
  explicit FuseServer(FuseOptions options);
  ~FuseServer();
  FuseServer(const FuseServer&) = delete;
  FuseServer& operator=(const FuseServer&) = delete;

  // All on the loop's thread:

  void attach(EventLoop& loop, Completion completion);
  /// How many files the guest may know at a time; more are ENFILE. Unlimited by default.
  void limitInodes(size_t count) { maxInodes_ = count; }
  /// Ends the session: waits for what is running, forgets what is pending without completing it, closes
  /// everything.
  void detach();
  /// Suspends what goes on by itself: `paused` is called once no worker serves a request any more. A lock
  /// that is waited for stays so.
  void pause(std::function<void()> paused);
  void resume();
  /// The requests that wait for a lock, by their tickets.
  std::vector<uint64_t> waiting() const;
  /// The session as a value: files by their paths, open files by their handles. While paused.
  Value save();
  /// Takes a session up: after attach(). What is gone from the folder is ESTALE, and EBADF where it was open.
  /// Throws a ValueError where `state` is wrong, std::system_error where the folder cannot be reached; there
  /// is no session then.
  void restore(const Value& state);
  bool attached() const { return loop_ != nullptr; }

  /// Serves one request: `in` and `out` are its readable and its writable memory (both may be changed).
  /// `ticket` comes back with the completion of a pending one.
  Outcome handle(std::span<iovec> in, std::span<iovec> out, uint64_t ticket);

  size_t knownInodes() const { return inodes_.size(); }
  size_t heldPaths() const { return inodes_.heldPaths(); }
  size_t openFiles() const { return files_.size(); }
  uint64_t bytesRead() const { return bytesRead_; }
  uint64_t bytesWritten() const { return bytesWritten_; }

 private:
  /// What an operation returns beside 0 and errnos.
  static constexpr int kNoReply = -1;
  static constexpr int kPending = -2;
  static constexpr unsigned kMaxWorkers = 4;
  static constexpr size_t kOutputSize =
      64 * 1024;  ///< of output_: the largest extended attribute, list or piece of a folder
  static constexpr unsigned kStatxMask = STATX_BASIC_STATS | STATX_MNT_ID;

  using Handler = int (FuseServer::*)(Request&);
  struct Operation {
    Handler handler = nullptr;
    uint32_t replySize = 0;  ///< room for the fixed part of the reply that is checked before anything is done
    bool changes = false;    ///< refused on a read-only share
  };
  static const Operation* operationOf(uint32_t opcode);

  // fuse_server.cc: the session
  int init(Request& request);
  int destroy(Request& request);
  int forget(Request& request);
  int batchForget(Request& request);
  int interrupt(Request& request);
  int notTty(Request& request);
  void endSession();
  int startRoot();

  // fuse_exports.cc: the shared folders, and the root that stands above several
  /// A folder of the host that the guest sees: the one shared, or an export. Holds it open.
  struct Share {
    std::string name;
    Fd path;  ///< O_PATH
    bool readOnly = false;
    uint64_t nodeId = 0;
  };
  static std::vector<Share> openShares(const FuseOptions& options);
  bool readOnly(uint32_t share) const { return share >= shares_.size() || shares_[share].readOnly; }
  bool readOnlyNode(uint64_t nodeId);
  int startExports();
  /// Serves a request for the root of exports.
  int serveExports(Request& request, const Operation& operation);
  int lookupExport(Request& request);
  int exportsAttributes(Request& request) const;
  int listExports(Request& request, bool plus);
  int fillExport(Share& share, fuse_entry_out& entry);

  // fuse_inodes.cc: looking things up, attributes
  int lookup(Request& request);
  int getattr(Request& request);
  int setattr(Request& request);
  int readlink(Request& request);
  int statfs(Request& request);
  int access(Request& request);
  int syncfs(Request& request);
  int change(const fuse_setattr_in& in, const Inode& inode, int path, const OpenFile* file);
  int replyAttributes(Request& request, int fd);
  int changeOwner(const fuse_setattr_in& in, int path) const;
  /// Whether both owners are ones that the guest can have; always so without a map.
  int checkMapped(int path) const;

  // fuse_names.cc: what changes folders
  int mknod(Request& request);
  int mkdir(Request& request);
  int symlink(Request& request);
  int unlink(Request& request);
  int rmdir(Request& request);
  int rename(Request& request);
  int rename2(Request& request);
  int link(Request& request);
  int create(Request& request);
  int tmpfile(Request& request);
  int renameTo(Request& request, uint64_t toNode, uint32_t flags);
  /// Runs `create` with the requester as the owner of what it makes: its result, or -1 with errno set.
  template <typename Create>
  int asRequester(const Request& request, mode_t umask, Create&& create) const;
  /// Runs `create` (with the folder's descriptor) as the requester and replies with the entry of `name`.
  template <typename Make>
  int make(Request& request, mode_t umask, const char* name, Make&& create);
  int replyCreated(Request& request, const Inode& parent, Fd path, Fd fd, int flags);

  // fuse_files.cc: open files
  int open(Request& request);
  int release(Request& request);
  int flush(Request& request);

  // fuse_io.cc: their bytes
  HostFileSystem& hostFileSystem(const Inode& inode, int fd);
  int read(Request& request);
  int write(Request& request);
  int fsync(Request& request);
  int fallocate(Request& request);
  int lseek(Request& request);
  int copyFileRange(Request& request);

  // fuse_directories.cc
  int opendir(Request& request);
  int readdir(Request& request);
  int readdirplus(Request& request);
  int releasedir(Request& request);
  int fsyncdir(Request& request);
  int listDirectory(Request& request, bool plus);
  static constexpr uint64_t kUnknownPosition = ~uint64_t{0};

  // fuse_xattrs.cc
  int getxattr(Request& request);
  int listxattr(Request& request);
  int setxattr(Request& request);
  int removexattr(Request& request);
  int takeXattrName(Request& request, const char*& name) const;
  int replyXattr(Request& request, uint32_t size, ssize_t length);

  // fuse_locks.cc
  int getlk(Request& request);
  int setlk(Request& request);
  int setlkw(Request& request);
  int lock(Request& request, bool wait);
  int lockFd(uint64_t nodeId, uint64_t owner, bool readOnly, int& fd);
  /// 0, EAGAIN (somebody else has it) or another errno.
  int tryLock(uint64_t nodeId, const OpenFile& file, const fuse_lk_in& in);
  void retryLocks();
  void scheduleLocks();

  // fuse_state.cc
  std::string pathBelow(const std::string& root, int fd) const;
  void restoreNode(const Value& state);
  void restoreFile(const Value& state);

  // Shared by the operations.

  /// The node and its O_PATH descriptor: 0 or an errno.
  int resolve(uint64_t nodeId, Inode*& inode, int& path);
  int resolveDirectory(uint64_t nodeId, Inode*& inode, int& path);
  /// Appends the entry of `name`; 0 or an errno. The guest has then been told of it once more.
  int replyEntry(Request& request, const Inode& parent, int parentPath, const char* name);
  /// Looks `name` up, or takes a file in that is held already, and counts that the guest was told.
  int findEntry(const Inode& parent, int parentPath, const char* name, bool likelyKnown,
                fuse_entry_out& entry);
  int enterEntry(const Inode& parent, Fd path, const struct statx& attributes, fuse_entry_out& entry);
  void fillEntry(const Inode& inode, const struct statx& from, fuse_entry_out& entry) const;
  void fillAttributes(const struct statx& from, fuse_attr& attributes) const;
  int replyOpened(Request& request, std::shared_ptr<OpenFile> file, uint32_t openFlags);
  /// The flags to open a regular file with on the host for what the guest asks.
  int hostFlags(uint32_t guestFlags) const;
  /// Opens a regular file of the guest's again on the host: 0 or an errno.
  int openNode(uint64_t nodeId, uint32_t guestFlags, bool killSetIds, std::shared_ptr<OpenFile>& file,
               uint32_t& openFlags);
  /// Takes set-user-ID and set-group-ID off a regular file, as a write by somebody unprivileged does.
  int dropSetIds(int fd, mode_t which = S_ISUID | S_ISGID) const;
  /// FOPEN_KEEP_CACHE if the pages that the guest may have are still good.
  uint32_t keepCache(Inode& inode, const struct stat& now) const;
  /// Runs `work` on a worker and answers the request with what it returns: an errno (or 0), then maybe a
  /// payload.
  struct WorkResult {
    int error = 0;
    uint32_t inPlace = 0;  ///< bytes of the reply that have been put where they belong
    uint32_t bytesRead = 0;
    uint32_t bytesWritten = 0;
    uint32_t payloadSize = 0;
    std::array<char, 16> payload{};

    template <typename T>
    void reply(const T& value) {
      static_assert(sizeof value <= sizeof payload);
      std::memcpy(payload.data(), &value, sizeof value);
      payloadSize = sizeof value;
    }
  };
  int defer(Request& request, std::function<WorkResult()> work);

  const FuseOptions options_;
  ProcFds proc_;
  std::vector<Share> shares_;
  const timespec started_;
  const bool privileged_;
  bool flushes_ = false;  ///< whether FLUSH does anything on this host file system
  std::unordered_map<uint64_t, HostFileSystem> hostFileSystems_;  ///< by device
  InodeTable inodes_;
  FileTable files_;
  LockTable locks_;
  std::unique_ptr<char[]> scratch_;  ///< the request's strings
  std::unique_ptr<char[]> output_;   ///< what is put together before it goes to the guest
  EventLoop* loop_ = nullptr;
  Completion completion_;
  std::unique_ptr<WorkerPool> workers_;
  std::shared_ptr<std::atomic<bool>> session_;  ///< false once what was submitted in it must not be answered
  size_t maxInodes_ = SIZE_MAX;
  bool initialised_ = false;
  bool submounts_ = false;
  bool extendedSetxattr_ = false;
  size_t working_ = 0;  ///< requests that workers serve
  bool paused_ = false;
  std::function<void()> pauseDone_;
  EventLoop::TimerId lockTimer_ = 0;
  std::chrono::milliseconds lockDelay_{0};
  uint64_t bytesRead_ = 0;
  uint64_t bytesWritten_ = 0;
};

}  // namespace tsvmm::virtio::fs
