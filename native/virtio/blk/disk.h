#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
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

  int error = 0;      ///< the outcome: 0 or an errno
  uint64_t done = 0;  ///< bytes read or written, from the front
};

/// Where the sectors of a block device are kept. Used on the I/O thread only.
class Disk {
 public:
  using Finished = std::function<void(DiskRequest&)>;

  virtual ~Disk() = default;
  /// Before the first submit(); `finished` is called on the loop for each request that submit() did not
  /// finish itself.
  virtual void attach(EventLoop& loop, Finished finished) = 0;
  /// Begins a request. True: it has finished already. False: it will be handed to `finished`, never from
  /// inside submit().
  virtual bool submit(DiskRequest& request) = 0;
  /// Waits for everything that was submitted; none of it is handed to `finished` afterwards, nor touches
  /// guest memory. The disk can be attached again.
  virtual void detach() = 0;
};

/// What opening a disk image tells.
struct DiskFile {
  Fd fd;
  uint64_t size = 0;         ///< bytes that there are
  uint32_t blockSize = 512;  ///< the device's logical block size where it is a block device
  bool blockDevice = false;
  bool readOnly = false;
  bool inMemory = false;  ///< on tmpfs or ramfs: no access waits for a device (save to swap in)
  bool locked = true;     ///< false where the file system has no locks
  uint64_t sectors() const { return (size + 511) / 512; }
};

/// Opens a raw disk image or a block device and locks it: shared for a read-only disk, else exclusively, by
/// an open file description lock over the whole file, so that no two machines write to one disk by accident.
/// A writable image must be a whole number of 512-byte sectors; the last sector of a read-only one is filled
/// up with zeros. Throws std::runtime_error that names the path.
DiskFile openDisk(const std::string& path, bool readOnly);

/// A disk on a file or a block device, through the page cache: what the page cache can do without waiting is
/// done at once (RWF_NOWAIT), everything else on a few threads.
std::unique_ptr<Disk> makeFileDisk(DiskFile file, unsigned threads = 4);

}  // namespace tsvmm::virtio
