#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/event_loop.h"
#include "io/fd.h"

namespace tsvmm::virtio {

/// One operation on a disk. Its owner keeps it where it is until it has finished.
struct DiskRequest {
  enum class Type { kRead, kWrite, kFlush, kDiscard, kZero };
  /// Bytes; both multiples of 512, wholly inside the disk.
  struct Range {
    uint64_t offset;
    uint64_t length;
    bool unmap;  ///< kZero: the blocks may be given back to the file system
  };

  Type type = Type::kRead;
  uint64_t offset = 0;        ///< kRead, kWrite: bytes from the disk's start
  std::vector<iovec> parts;   ///< kRead, kWrite: guest memory; consumed while the request runs
  std::vector<Range> ranges;  ///< kDiscard, kZero
  bool durable = false;       ///< kWrite, kDiscard, kZero: finished only when it would survive a power cut

  int error = 0;           ///< the outcome: 0 or an errno
  bool beyondEnd = false;  ///< the error is that the file has become shorter than the disk
  uint64_t done = 0;       ///< bytes read or written, from the front
  size_t part = 0;         ///< the disk's: the first of `parts` that has not been moved wholly
  bool waits = false;      ///< the disk's: not to be tried again without waiting

  /// Before each use.
  void clear() {
    parts.clear();
    ranges.clear();
    durable = beyondEnd = waits = false;
    error = 0;
    done = 0;
    part = 0;
  }
};

/// Who hears of requests that have finished.
class DiskClient {
 public:
  /// A request that Disk::submit() had taken has finished; on the loop, never from inside submit().
  virtual void finished(DiskRequest& request) = 0;
  /// That was all for now: after one finished() or several.
  virtual void settled() = 0;

 protected:
  ~DiskClient() = default;
};

/// Where the sectors of a block device are kept. Used on the I/O thread only.
class Disk {
 public:
  virtual ~Disk() = default;
  /// Before the first submit(). `client` outlives the disk's use of it: until detach().
  virtual void attach(EventLoop& loop, DiskClient& client) = 0;
  /// Begins a request. True: it has finished already. False: it will be handed to the client; it may wait for
  /// the next kick() to begin.
  virtual bool submit(DiskRequest& request) = 0;
  /// After one submit() or several that returned false. The client may hear of them from inside it.
  virtual void kick() = 0;
  /// Waits for everything that was submitted; the client hears of none of it afterwards, and none touches
  /// guest memory. Not from inside the client's methods. The disk can be attached again.
  virtual void detach() = 0;
};

/// How requests are performed that cannot be at once.
enum class DiskEngine {
  kAuto,     ///< kUring, or kThreads where the kernel has no io_uring or forbids it
  kUring,    ///< io_uring(7)
  kThreads,  ///< a few threads with blocking system calls
};

/// What opening a disk image tells.
struct DiskFile {
  std::string path;
  Fd fd;
  Fd directFd;               ///< the same file opened with O_DIRECT, where that was asked for
  uint32_t alignment = 1;    ///< of offset, length and memory of what goes to directFd
  uint64_t size = 0;         ///< bytes that there are
  uint32_t blockSize = 512;  ///< what requests should be multiples of
  bool blockDevice = false;
  bool readOnly = false;
  bool inMemory = false;  ///< on tmpfs or ramfs: no access waits for a device (save to swap in)
  bool locked = true;     ///< false where the file system has no locks
  DiskEngine engine = DiskEngine::kAuto;
  uint64_t sectors() const { return (size + 511) / 512; }
  /// The same open file (and lock), measured anew: it may have grown. Throws as openDisk().
  DiskFile again() const;
};

struct DiskOpenOptions {
  bool readOnly = false;
  bool direct = false;  ///< past the host's page cache (O_DIRECT)
  DiskEngine engine = DiskEngine::kAuto;
};

/// Opens a raw disk image or a block device and locks it: shared for a read-only disk, else exclusively, by
/// an open file description lock over the whole file, so that no two machines write to one disk by accident.
/// A writable image must be a whole number of 512-byte sectors; the last sector of a read-only one is filled
/// up with zeros. Throws std::runtime_error that names the path.
DiskFile openDisk(const std::string& path, const DiskOpenOptions& options);
/// Whether `path` names the file that `disk` has open.
bool isOpenAs(const DiskFile& disk, const std::string& path);

/// A disk on a file or a block device. What the page cache can do without waiting is done at once
/// (RWF_NOWAIT), everything else by an engine that is made when the first request needs it.
std::unique_ptr<Disk> makeFileDisk(DiskFile file);

}  // namespace tsvmm::virtio
