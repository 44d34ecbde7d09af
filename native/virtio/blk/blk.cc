#include "virtio/blk/blk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace tsvmm::virtio {
namespace {

// Virtio 1.2, 5.2.3.
constexpr uint64_t kFeatureFlush = uint64_t{1} << 9;
constexpr uint64_t kFeatureDiscard = uint64_t{1} << 13;
constexpr uint64_t kFeatureWriteZeroes = uint64_t{1} << 14;

// 5.2.6: types and statuses.
constexpr uint32_t kIn = 0;
constexpr uint32_t kOut = 1;
constexpr uint32_t kFlush = 4;
constexpr uint32_t kGetId = 8;
constexpr uint32_t kDiscard = 11;
constexpr uint32_t kWriteZeroes = 13;
constexpr uint8_t kOk = 0;
constexpr uint8_t kIoError = 1;
constexpr uint8_t kUnsupported = 2;
constexpr uint32_t kUnmap = 1;

constexpr uint64_t kSectorSize = 512;
constexpr size_t kIdSize = 20;
// What one visit to a queue may copy before other devices and waiting interrupts have their turn.
constexpr uint64_t kVisitBytes = 4 << 20;

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(Header) == 16);

struct Segment {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(Segment) == 16);

}  // namespace

Blk::Blk(std::unique_ptr<Disk> disk, BlkOptions options)
    : disk_(std::move(disk)), options_(std::move(options)) {}

Blk::~Blk() { reset(); }

void Blk::activate(Host& host) {
  if (!disk_) {
    host.fail("the disk has been closed");
    return;
  }
  host_ = &host;
  features_ = host.features();
  active_ = std::make_shared<Blk*>(this);
  disk_->attach(host.loop(), [this](DiskRequest& request) { finished(request); });
}

void Blk::reset() {
  if (host_ == nullptr) {
    return;
  }
  disk_->detach();
  active_.reset();
  inFlight_.clear();
  spare_.clear();
  host_ = nullptr;
}

bool Blk::close() {
  if (host_ != nullptr) {
    return false;
  }
  disk_.reset();
  return true;
}

void Blk::notify(uint16_t index) {
  Queue& queue = host_->queue(index);
  movedAtOnce_ = 0;
  bool again = queue.drain([&](Chain& chain) { return serve(index, chain); });
  again = again || movedAtOnce_ >= kVisitBytes;
  host_->signalQueue(index);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  } else if (again) {
    come(index);
  }
}

void Blk::come(uint16_t index) {
  host_->loop().post([weak = std::weak_ptr(active_), index] {
    if (const auto active = weak.lock()) {
      Blk& self = **active;
      if (self.host_->queue(index).enabled()) {
        self.notify(index);
      }
    }
  });
}

std::unique_ptr<Blk::Request> Blk::takeRequest() {
  if (spare_.empty()) {
    return std::make_unique<Request>();
  }
  auto request = std::move(spare_.back());
  spare_.pop_back();
  return request;
}

bool Blk::serve(uint16_t index, Chain& chain) {
  if (movedAtOnce_ >= kVisitBytes) {
    return false;
  }
  metrics.requests.fetch_add(1, std::memory_order_relaxed);
  if (chain.writableSize() == 0) {
    // There is nowhere to put a status: all that can be done is to give the buffer back.
    metrics.errors.fetch_add(1, std::memory_order_relaxed);
    host_->queue(index).push(chain.head(), 0);
    return true;
  }
  auto request = takeRequest();
  std::swap(request->chain, chain);
  request->queue = index;
  request->type = UINT32_MAX;
  request->disk.error = 0;
  request->disk.done = 0;
  request->disk.durable = false;
  request->disk.ranges.clear();
  request->disk.parts.clear();
  if (const auto status = prepare(*request)) {
    if (*status != kOk) {
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
    }
    answer(*request, *status);
  } else if (disk_->submit(request->disk)) {
    movedAtOnce_ += request->disk.done;
    answer(*request, statusOf(*request));
  } else {
    inFlight_.push_back(std::move(request));
    return true;
  }
  spare_.push_back(std::move(request));
  return true;
}

bool Blk::insideDisk(uint64_t sector, uint64_t sectors) const {
  return sector <= options_.sectors && sectors <= options_.sectors - sector;
}

std::optional<uint8_t> Blk::prepare(Request& request) {
  const auto header = request.chain.read<Header>();
  if (!header) {
    return kIoError;
  }
  request.type = header->type;
  switch (header->type) {
    case kIn:
    case kOut:
      return prepareTransfer(request, header->sector);
    case kFlush:
      request.disk.type = DiskRequest::Type::kFlush;
      return std::nullopt;
    case kGetId:
      return writeId(request);
    case kDiscard:
      return (features_ & kFeatureDiscard) != 0 ? prepareRanges(request) : kUnsupported;
    case kWriteZeroes:
      return (features_ & kFeatureWriteZeroes) != 0 ? prepareRanges(request) : kUnsupported;
    default:
      return kUnsupported;
  }
}

std::optional<uint8_t> Blk::prepareTransfer(Request& request, uint64_t sector) {
  const bool reading = request.type == kIn;
  // The last writable byte is the status.
  const uint64_t size = reading ? request.chain.writableSize() - 1 : request.chain.readableLeft();
  if ((!reading && options_.readOnly) || size % kSectorSize != 0 || !insideDisk(sector, size / kSectorSize)) {
    return kIoError;
  }
  request.disk.type = reading ? DiskRequest::Type::kRead : DiskRequest::Type::kWrite;
  request.disk.offset = sector * kSectorSize;
  request.disk.parts = reading ? request.chain.writableIovecs(size) : request.chain.takeReadable(size);
  // 5.2.6.2: without VIRTIO_BLK_F_FLUSH the driver has no other way to make its writes durable.
  request.disk.durable = (features_ & kFeatureFlush) == 0;
  return std::nullopt;
}

std::optional<uint8_t> Blk::prepareRanges(Request& request) {
  const bool discards = request.type == kDiscard;
  const uint64_t size = request.chain.readableLeft();
  const uint64_t count = size / sizeof(Segment);
  if (options_.readOnly || count == 0 || size % sizeof(Segment) != 0 ||
      count > (discards ? options_.maxDiscardSegments : options_.maxWriteZeroesSegments)) {
    return kIoError;
  }
  const uint32_t maxSectors = discards ? options_.maxDiscardSectors : options_.maxWriteZeroesSectors;
  for (uint64_t i = 0; i < count; i++) {
    const auto segment = request.chain.read<Segment>();
    if (!segment) {
      return kIoError;
    }
    // 5.2.6.2: an unknown flag, and `unmap` with a DISCARD, are answered with UNSUPP.
    if ((segment->flags & ~kUnmap) != 0 || (discards && segment->flags != 0)) {
      return kUnsupported;
    }
    if (segment->sectors > maxSectors || !insideDisk(segment->sector, segment->sectors)) {
      return kIoError;
    }
    if (segment->sectors != 0) {
      request.disk.ranges.push_back(
          {segment->sector * kSectorSize, segment->sectors * kSectorSize, (segment->flags & kUnmap) != 0});
    }
  }
  request.disk.type = discards ? DiskRequest::Type::kDiscard : DiskRequest::Type::kZero;
  request.disk.durable = (features_ & kFeatureFlush) == 0;
  return std::nullopt;
}

uint8_t Blk::writeId(Request& request) {
  char id[kIdSize] = {};
  std::memcpy(id, options_.id.data(), std::min(options_.id.size(), kIdSize));
  if (request.chain.writableSize() - 1 < kIdSize) {
    return kIoError;
  }
  request.chain.write(id, kIdSize);
  return kOk;
}

uint8_t Blk::statusOf(Request& request) {
  const DiskRequest& disk = request.disk;
  if (disk.type == DiskRequest::Type::kRead) {
    request.chain.advanceWritten(disk.done);
    metrics.bytesRead.fetch_add(disk.done, std::memory_order_relaxed);
  } else if (disk.type == DiskRequest::Type::kWrite) {
    metrics.bytesWritten.fetch_add(disk.done, std::memory_order_relaxed);
  }
  if (disk.error == 0) {
    return kOk;
  }
  metrics.errors.fetch_add(1, std::memory_order_relaxed);
  report(request);
  return kIoError;
}

void Blk::report(const Request& request) {
  // The guest chooses how often this happens: a line a second is enough to know.
  const auto now = std::chrono::steady_clock::now();
  if (now < nextReport_) {
    return;
  }
  nextReport_ = now + std::chrono::seconds(1);
  const DiskRequest& disk = request.disk;
  const char* what = "flushing";
  switch (disk.type) {
    case DiskRequest::Type::kRead:
      what = "reading";
      break;
    case DiskRequest::Type::kWrite:
      what = "writing";
      break;
    case DiskRequest::Type::kDiscard:
      what = "discarding";
      break;
    case DiskRequest::Type::kZero:
      what = "writing zeros";
      break;
    case DiskRequest::Type::kFlush:
      break;
  }
  const uint64_t offset = disk.ranges.empty() ? disk.offset + disk.done : disk.ranges.front().offset;
  std::string message = std::string("I/O error while ") + what;
  if (disk.type != DiskRequest::Type::kFlush) {
    message += " at byte " + std::to_string(offset);
  }
  host_->log(message + ": " + std::generic_category().message(disk.error));
}

void Blk::answer(Request& request, uint8_t status) {
  Chain& chain = request.chain;
  chain.writeAt(chain.writableSize() - 1, &status, 1);
  host_->queue(request.queue).push(chain.head(), chain.written() + 1);
}

void Blk::finished(DiskRequest& disk) {
  const auto at = std::find_if(inFlight_.begin(), inFlight_.end(),
                               [&](const auto& request) { return &request->disk == &disk; });
  if (at == inFlight_.end()) {
    return;
  }
  Request& request = **at;
  answer(request, statusOf(request));
  host_->signalQueue(request.queue);
  std::iter_swap(at, inFlight_.end() - 1);
  spare_.push_back(std::move(inFlight_.back()));
  inFlight_.pop_back();
}

}  // namespace tsvmm::virtio
