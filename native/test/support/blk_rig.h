#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/uring.h"
#include "support/fake_host.h"
#include "support/ring.h"
#include "virtio/blk/blk.h"
#include "virtio/blk/disk.h"

/// A driver of a block device, for tests: files, rings, and a disk whose requests finish when the test says
/// so.
namespace tsvmm::test {

inline constexpr uint64_t kFlush = uint64_t{1} << 9;
inline constexpr uint64_t kDiscard = uint64_t{1} << 13;
inline constexpr uint64_t kWriteZeroes = uint64_t{1} << 14;
inline constexpr uint64_t kAllFeatures = FakeHost::kDefaultFeatures | kFlush | kDiscard | kWriteZeroes;

/// A file of its own that goes with the test.
struct TempFile {
  explicit TempFile(const std::string& content) {
    fd = Fd(mkostemp(path.data(), O_CLOEXEC));
    REQUIRE(write(fd.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  }
  ~TempFile() { unlink(path.c_str()); }
  std::string content() const {
    struct stat status {};
    fstat(fd.get(), &status);
    std::string bytes(static_cast<size_t>(status.st_size), '\0');
    REQUIRE(pread(fd.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  uint64_t blocks() const {
    struct stat status {};
    fstat(fd.get(), &status);
    return static_cast<uint64_t>(status.st_blocks);
  }
  std::string path = "/tmp/tsvmm-blk-test-XXXXXX";
  Fd fd;
};

inline std::string pattern(size_t size, char seed = 'a') {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; i++) {
    bytes[i] = static_cast<char>(seed + static_cast<char>(i / 7 % 23));
  }
  return bytes;
}

inline virtio::BlkOptions optionsFor(uint64_t sectors, bool readOnly = false) {
  virtio::BlkOptions options;
  options.sectors = sectors;
  options.readOnly = readOnly;
  options.id = "a disk's id";
  options.maxDiscardSectors = 1 << 22;
  options.maxDiscardSegments = 16;
  options.maxWriteZeroesSectors = 1 << 18;
  options.maxWriteZeroesSegments = 16;
  return options;
}

struct Segment {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};

struct Answer {
  uint8_t status;
  uint32_t used;
  std::string data;
};

/// A driver with one device on a disk.
struct Rig {
  Rig(std::unique_ptr<virtio::Disk> disk, virtio::BlkOptions options, uint64_t features = kAllFeatures)
      : ring(ram, 256), host(ram, {&ring}, features), blk(std::move(disk), std::move(options)) {
    host.activate(blk);
  }
  ~Rig() { host.reset(blk); }

  std::vector<Buffer> header(uint32_t type, uint64_t sector, uint32_t size = 16) {
    uint8_t bytes[16] = {};
    std::memcpy(bytes, &type, 4);
    std::memcpy(bytes + 8, &sector, 8);
    return {{ram.place(bytes, size), size, false}};
  }
  /// Queues a request; the status is at `status`, 0xee until it is answered.
  uint16_t queue(uint32_t type, uint64_t sector, const std::vector<Buffer>& data, uint64_t& status) {
    auto buffers = header(type, sector);
    buffers.insert(buffers.end(), data.begin(), data.end());
    status = ram.place("\xee", 1);
    buffers.push_back({status, 1, true});
    return buffers.size() > 4 ? ring.addIndirect(buffers) : ring.add(buffers);
  }
  Used wait() {
    std::optional<Used> used;
    REQUIRE(host.waitUntil([&] { return ring.hasUsed(); }));
    host.run([&] { used = ring.takeUsed(); });
    return *used;
  }
  Answer request(uint32_t type, uint64_t sector, const std::vector<Buffer>& data) {
    uint64_t status = 0;
    const uint16_t head = queue(type, sector, data, status);
    host.notify(blk, 0);
    const Used used = wait();
    CHECK(used.head == head);
    Answer answer{static_cast<uint8_t>(ram.read(status, 1)[0]), used.length, {}};
    for (const Buffer& buffer : data) {
      if (buffer.writable) {
        answer.data += ram.read(buffer.address, buffer.length);
      }
    }
    return answer;
  }
  Answer readSectors(uint64_t sector, uint32_t bytes) {
    return request(0, sector, {{ram.alloc(bytes), bytes, true}});
  }
  Answer writeSectors(uint64_t sector, const std::string& bytes) {
    return request(1, sector,
                   {{ram.place(bytes.data(), bytes.size()), static_cast<uint32_t>(bytes.size()), false}});
  }
  Answer segments(uint32_t type, const std::vector<Segment>& list) {
    const auto size = static_cast<uint32_t>(list.size() * sizeof(Segment));
    return request(type, 0, {{ram.place(list.data(), size), size, false}});
  }

  GuestRam ram;
  DriverRing ring;
  FakeHost host;
  virtio::Blk blk;
};

/// How a test wants its file served; engine kUring only where the kernel has it.
inline std::unique_ptr<virtio::Disk> diskOn(const std::string& path, virtio::DiskOpenOptions options = {}) {
  return virtio::makeFileDisk(virtio::openDisk(path, options));
}

inline bool haveUring() {
  int error = 0;
  return Uring::create(1, error) != nullptr;
}
inline std::vector<virtio::DiskEngine> engines() {
  std::vector<virtio::DiskEngine> all{virtio::DiskEngine::kThreads};
  if (haveUring()) {
    all.push_back(virtio::DiskEngine::kUring);
  }
  return all;
}

struct FileRig : Rig {
  explicit FileRig(const TempFile& file, virtio::DiskOpenOptions options = {},
                   uint64_t features = kAllFeatures)
      : Rig(diskOn(file.path, options), optionsFor((file.content().size() + 511) / 512, options.readOnly),
            features) {}
};

/// A disk whose requests finish when the test says so.
class HeldDisk final : public virtio::Disk {
 public:
  struct Control {
    std::deque<virtio::DiskRequest*> held;
    std::map<virtio::DiskRequest::Type, int> submitted;
    bool lastDurable = false;
    int attached = 0;
    int detached = 0;
    int kicks = 0;
    virtio::DiskClient* client = nullptr;
    void finish(virtio::DiskRequest* request) {
      client->finished(*request);
      client->settled();
    }
    void finishAll() {
      for (virtio::DiskRequest* request : std::exchange(held, {})) {
        client->finished(*request);
      }
      client->settled();
    }
  };
  explicit HeldDisk(std::shared_ptr<Control> control) : control_(std::move(control)) {}
  void attach(EventLoop&, virtio::DiskClient& client) override {
    control_->client = &client;
    control_->attached++;
  }
  bool submit(virtio::DiskRequest& request) override {
    control_->held.push_back(&request);
    control_->submitted[request.type]++;
    control_->lastDurable = request.durable;
    return false;
  }
  void kick() override { control_->kicks++; }
  void detach() override {
    control_->detached++;
    control_->held.clear();
  }

 private:
  std::shared_ptr<Control> control_;
};

}  // namespace tsvmm::test
