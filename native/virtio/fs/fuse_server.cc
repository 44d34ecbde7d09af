#include "virtio/fs/fuse_server.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "virtio/fs/credentials.h"

namespace tsvmm::virtio::fs {
namespace {

constexpr uint32_t kOldestMinor = 31;  // the first with virtio-fs
constexpr uint16_t kMaxBackground = 64;

FuseOptions normalised(FuseOptions options) {
  options.writeback = options.writeback && options.cache == Cache::kAlways && !options.readOnly;
  return options;
}

timespec now() {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

/// Whether closing a file may tell of a failed write, which the guest's close() should then report.
bool reportsErrorsOnClose(int fd) {
  struct statfs info;
  if (fstatfs(fd, &info) != 0) {
    return true;
  }
  switch (static_cast<uint32_t>(info.f_type)) {
    case NFS_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case V9FS_MAGIC:
    case AFS_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

}  // namespace

const FuseServer::Operation* FuseServer::operationOf(uint32_t opcode) {
  constexpr uint32_t kEntry = sizeof(fuse_entry_out);
  constexpr uint32_t kAttributes = sizeof(fuse_attr_out);
  constexpr uint32_t kOpened = sizeof(fuse_open_out);
  using S = FuseServer;
  static constexpr auto kOperations = [] {
    std::array<Operation, FUSE_TMPFILE + 1> table{};
    table[FUSE_LOOKUP] = {&S::lookup, kEntry, false};
    table[FUSE_FORGET] = {&S::forget, 0, false};
    table[FUSE_GETATTR] = {&S::getattr, kAttributes, false};
    table[FUSE_SETATTR] = {&S::setattr, kAttributes, true};
    table[FUSE_READLINK] = {&S::readlink, 0, false};
    table[FUSE_SYMLINK] = {&S::symlink, kEntry, true};
    table[FUSE_MKNOD] = {&S::mknod, kEntry, true};
    table[FUSE_MKDIR] = {&S::mkdir, kEntry, true};
    table[FUSE_UNLINK] = {&S::unlink, 0, true};
    table[FUSE_RMDIR] = {&S::rmdir, 0, true};
    table[FUSE_RENAME] = {&S::rename, 0, true};
    table[FUSE_LINK] = {&S::link, kEntry, true};
    table[FUSE_OPEN] = {&S::open, kOpened, false};
    table[FUSE_READ] = {&S::read, 0, false};
    table[FUSE_WRITE] = {&S::write, sizeof(fuse_write_out), true};
    table[FUSE_STATFS] = {&S::statfs, sizeof(fuse_statfs_out), false};
    table[FUSE_RELEASE] = {&S::release, 0, false};
    table[FUSE_FSYNC] = {&S::fsync, 0, false};
    table[FUSE_SETXATTR] = {&S::setxattr, 0, true};
    table[FUSE_GETXATTR] = {&S::getxattr, 0, false};
    table[FUSE_LISTXATTR] = {&S::listxattr, 0, false};
    table[FUSE_REMOVEXATTR] = {&S::removexattr, 0, true};
    table[FUSE_FLUSH] = {&S::flush, 0, false};
    table[FUSE_INIT] = {&S::init, FUSE_COMPAT_INIT_OUT_SIZE, false};
    table[FUSE_OPENDIR] = {&S::opendir, kOpened, false};
    table[FUSE_READDIR] = {&S::readdir, 0, false};
    table[FUSE_RELEASEDIR] = {&S::releasedir, 0, false};
    table[FUSE_FSYNCDIR] = {&S::fsyncdir, 0, false};
    table[FUSE_GETLK] = {&S::getlk, sizeof(fuse_lk_out), false};
    table[FUSE_SETLK] = {&S::setlk, 0, false};
    table[FUSE_SETLKW] = {&S::setlkw, 0, false};
    table[FUSE_ACCESS] = {&S::access, 0, false};
    table[FUSE_CREATE] = {&S::create, kEntry + kOpened, true};
    table[FUSE_INTERRUPT] = {&S::interrupt, 0, false};
    table[FUSE_DESTROY] = {&S::destroy, 0, false};
    table[FUSE_IOCTL] = {&S::notTty, 0, false};
    table[FUSE_BATCH_FORGET] = {&S::batchForget, 0, false};
    table[FUSE_FALLOCATE] = {&S::fallocate, 0, true};
    table[FUSE_READDIRPLUS] = {&S::readdirplus, 0, false};
    table[FUSE_RENAME2] = {&S::rename2, 0, true};
    table[FUSE_LSEEK] = {&S::lseek, sizeof(fuse_lseek_out), false};
    table[FUSE_COPY_FILE_RANGE] = {&S::copyFileRange, sizeof(fuse_write_out), false};
    table[FUSE_SYNCFS] = {&S::syncfs, 0, false};
    table[FUSE_TMPFILE] = {&S::tmpfile, kEntry + kOpened, true};
    return table;
  }();
  return opcode < kOperations.size() && kOperations[opcode].handler != nullptr ? &kOperations[opcode]
                                                                               : nullptr;
}

FuseServer::FuseServer(FuseOptions options)
    : options_(normalised(std::move(options))),
      shares_(openShares(options_)),
      started_(now()),
      privileged_(geteuid() == 0),
      inodes_(proc_, options_.maxPaths != 0 ? options_.maxPaths : static_cast<size_t>(FdBudget::limit() / 2)),
      scratch_(new char[Request::kMaxTail]),
      output_(new char[kOutputSize]) {
  flushes_ = options_.hostLocks || std::any_of(shares_.begin(), shares_.end(), [](const Share& share) {
               return reportsErrorsOnClose(share.path.get());
             });
}

FuseServer::~FuseServer() {
  if (attached()) {
    detach();
  }
}

void FuseServer::attach(EventLoop& loop, Completion completion) {
  loop_ = &loop;
  completion_ = std::move(completion);
  workers_ = std::make_unique<WorkerPool>(loop, kMaxWorkers);
  session_ = std::make_shared<std::atomic<bool>>(true);
}

void FuseServer::detach() {
  *session_ = false;
  workers_.reset();
  working_ = 0;
  paused_ = false;
  pauseDone_ = nullptr;
  locks_.waiting.clear();
  endSession();
  completion_ = nullptr;
  loop_ = nullptr;
}

void FuseServer::endSession() {
  if (lockTimer_ != 0) {
    loop_->cancel(lockTimer_);
    lockTimer_ = 0;
  }
  // Whoever waits for a lock must be told, or the transport would keep the request for ever.
  while (!locks_.waiting.empty()) {
    WaitingLock waiting = std::move(locks_.waiting.front());
    locks_.waiting.pop_front();
    completion_(waiting.ticket, waiting.slot.finish(waiting.unique, EINTR, 0), true);
  }
  locks_.owners.clear();
  files_.clear();
  inodes_.clear();
  initialised_ = false;
}

FuseServer::Outcome FuseServer::handle(std::span<iovec> in, std::span<iovec> out, uint64_t ticket) {
  prepareThread();
  inodes_.trim();
  Request request(in, out, scratch_.get(), ticket);
  if (request.in.left() < sizeof(fuse_in_header)) {
    return {.failed = true};
  }
  int result = request.begin();
  if (result == 0) {
    const Operation* operation = operationOf(request.header.opcode);
    const bool silent = request.header.opcode == FUSE_FORGET || request.header.opcode == FUSE_BATCH_FORGET ||
                        request.header.opcode == FUSE_INTERRUPT;
    if (!request.slot && !silent) {
      return {.failed = true};  // Nowhere to tell the result: then nothing is done.
    }
    if (operation == nullptr) {
      result = ENOSYS;
    } else if (!initialised_ && request.header.opcode != FUSE_INIT) {
      result = silent ? kNoReply : EIO;
    } else if (operation->changes && readOnlyNode(request.header.nodeid)) {
      result = EROFS;
    } else if (request.out.left() < operation->replySize) {
      result = EINVAL;
    } else if (!options_.exports.empty() && request.header.nodeid == InodeTable::kRootId) {
      result = serveExports(request, *operation);
    } else {
      result = (this->*operation->handler)(request);
    }
  }
  if (result == kPending) {
    return {.pending = true};
  }
  if (result == kNoReply) {
    return {};
  }
  return {.written = request.finish(result), .failed = result != 0};
}

int FuseServer::startRoot() {
  if (!options_.exports.empty()) {
    return startExports();
  }
  struct statx attributes;
  Fd root(fcntl(shares_.front().path.get(), F_DUPFD_CLOEXEC, 0));
  if (!root || statx(root.get(), "", AT_EMPTY_PATH, kStatxMask, &attributes) != 0) {
    return errno;
  }
  inodes_.reset(std::move(root), attributes);
  return 0;
}

int FuseServer::init(Request& request) {
  fuse_init_in in{};
  // Before 7.36 the structure ended with the flags.
  if (!request.in.read(&in, offsetof(fuse_init_in, flags2))) {
    return EINVAL;
  }
  endSession();
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in.major > FUSE_KERNEL_VERSION) {
    return request.replyBytes(&out, FUSE_COMPAT_INIT_OUT_SIZE);  // The kernel asks again with our version.
  }
  if (in.major < FUSE_KERNEL_VERSION || in.minor < kOldestMinor) {
    return EPROTO;
  }
  if (const int error = startRoot()) {
    return error;
  }
  uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                    FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                    FUSE_CACHE_SYMLINKS | FUSE_SUBMOUNTS | FUSE_HANDLE_KILLPRIV_V2;
  if (options_.cache != Cache::kAlways) {
    wanted |= FUSE_AUTO_INVAL_DATA;
  }
  if (options_.writeback) {
    wanted |= FUSE_WRITEBACK_CACHE;
  }
  if (options_.hostLocks) {
    wanted |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
  }
  if (options_.posixAcl) {
    wanted |= FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT;
  }
  out.flags = in.flags & wanted;
  submounts_ = (out.flags & FUSE_SUBMOUNTS) != 0;
  extendedSetxattr_ = (out.flags & FUSE_SETXATTR_EXT) != 0;
  out.max_readahead = std::min(in.max_readahead, kMaxWrite);
  out.max_background = kMaxBackground;
  out.congestion_threshold = kMaxBackground * 3 / 4;
  out.max_write = kMaxWrite;
  out.max_pages = kMaxWrite / 4096;
  out.time_gran = 1;
  if (const int error = request.reply(out)) {
    return error;
  }
  initialised_ = true;
  return 0;
}

int FuseServer::destroy(Request&) {
  endSession();
  return 0;
}

int FuseServer::forget(Request& request) {
  fuse_forget_in in;
  if (request.take(in) && inodes_.forget(request.header.nodeid, in.nlookup)) {
    locks_.dropNode(request.header.nodeid);
  }
  return kNoReply;
}

int FuseServer::batchForget(Request& request) {
  fuse_batch_forget_in in;
  fuse_forget_one one;
  request.in.limit(kMaxWrite);
  if (request.take(in)) {
    for (uint32_t i = 0; i < in.count && request.take(one); i++) {
      if (inodes_.forget(one.nodeid, one.nlookup)) {
        locks_.dropNode(one.nodeid);
      }
    }
  }
  return kNoReply;
}

int FuseServer::notTty(Request&) { return ENOTTY; }

int FuseServer::resolve(uint64_t nodeId, Inode*& inode, int& path) {
  inode = inodes_.find(nodeId);
  if (inode == nullptr) {
    return ESTALE;
  }
  path = inodes_.path(*inode);
  return path < 0 ? errno : 0;
}

int FuseServer::resolveDirectory(uint64_t nodeId, Inode*& inode, int& path) {
  if (const int error = resolve(nodeId, inode, path)) {
    return error;
  }
  return inode->isDirectory() ? 0 : ENOTDIR;
}

int FuseServer::defer(Request& request, std::function<WorkResult()> work) {
  struct Pending {
    ReplySlot slot;
    uint64_t unique;
    uint64_t ticket;
    WorkResult result;
    std::function<WorkResult()> work;
  };
  auto pending = std::make_shared<Pending>(
      Pending{request.slot, request.header.unique, request.ticket, {}, std::move(work)});
  pending->slot.takePayload(request.out);
  working_++;
  workers_->submit(
      [pending, session = session_] {
        if (*session) {
          pending->result = pending->work();
        }
        pending->work = nullptr;
      },
      [this, pending, session = session_] {
        if (!*session) {
          return;
        }
        WorkResult& result = pending->result;
        bytesRead_ += result.bytesRead;
        bytesWritten_ += result.bytesWritten;
        if (result.error == 0 && result.payloadSize != 0 &&
            !pending->slot.writePayload(result.payload.data(), result.payloadSize)) {
          result.error = EINVAL;
        }
        const uint32_t payload = result.payloadSize + result.inPlace;
        completion_(pending->ticket, pending->slot.finish(pending->unique, result.error, payload),
                    result.error != 0);
        if (--working_ == 0 && pauseDone_) {
          std::exchange(pauseDone_, nullptr)();
        }
      });
  return kPending;
}

}  // namespace tsvmm::virtio::fs
