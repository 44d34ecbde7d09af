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
constexpr uint64_t kFeatureConfigWce = uint64_t{1} << 11;
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
// Requests that are kept for the next use.
constexpr size_t kMaxSpare = 64;

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

uint64_t bytesOf(const DiskRequest& request) {
  uint64_t bytes = 0;
  for (const iovec& part : request.parts) {
    bytes += part.iov_len;
  }
  return bytes;
}

}  // namespace

void Blk::notify(uint16_t index) {
  if (held()) {
    return;  // what ends it comes to every queue
  }
  Queue& queue = host_->queue(index);
  movedAtOnce_ = 0;
  bool again = queue.drain([&](Chain& chain) { return serve(index, chain); });
  again = again || movedAtOnce_ >= kVisitBytes;
  if (!inFlight_.empty()) {
    disk_->kick();
  }
  host_->signalQueue(index);
  if (queue.broken()) {
    host_->fail("queue " + std::to_string(index) + ": " + queue.brokenReason());
  } else if (again && (throttled_ & 1u << index) == 0) {
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

void Blk::comeToAll() {
  for (uint16_t i = 0; i < options_.queues; i++) {
    come(i);
  }
}

std::unique_ptr<Blk::Request> Blk::takeRequest() {
  if (spare_.empty()) {
    return std::make_unique<Request>();
  }
  auto request = std::move(spare_.back());
  spare_.pop_back();
  return request;
}

void Blk::keep(std::unique_ptr<Request> request) {
  if (spare_.size() < kMaxSpare) {
    spare_.push_back(std::move(request));
  }
}

bool Blk::serve(uint16_t index, Chain& chain) {
  if (movedAtOnce_ >= kVisitBytes) {
    return false;
  }
  if (limiter_.limits() && !limiter_.ready()) {
    awaitLimiter(index);
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
  request->clear();
  request->queue = index;
  request->command = UINT32_MAX;
  const auto status = prepare(*request);
  if (limiter_.limits()) {
    limiter_.spend(status ? 0 : bytesOf(*request));
  }
  if (status) {
    if (*status != kOk) {
      metrics.errors.fetch_add(1, std::memory_order_relaxed);
    }
    answer(*request, *status);
  } else if (disk_->submit(*request)) {
    movedAtOnce_ += request->done;
    answer(*request, statusOf(*request));
  } else {
    request->slot = inFlight_.size();
    inFlight_.push_back(std::move(request));
    return true;
  }
  keep(std::move(request));
  return true;
}

bool Blk::insideDisk(uint64_t sector, uint64_t sectors) const {
  return sector <= sectors_ && sectors <= sectors_ - sector;
}

bool Blk::writesThrough() const {
  return (features_ & kFeatureFlush) == 0 || ((features_ & kFeatureConfigWce) != 0 && !writeback_);
}

std::optional<uint8_t> Blk::prepare(Request& request) {
  const auto header = request.chain.read<Header>();
  if (!header) {
    return kIoError;
  }
  request.command = header->type;
  switch (header->type) {
    case kIn:
    case kOut:
      return prepareTransfer(request, header->sector);
    case kFlush:
      request.type = DiskRequest::Type::kFlush;
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
  const bool reading = request.command == kIn;
  // The last writable byte is the status.
  const uint64_t size = reading ? request.chain.writableSize() - 1 : request.chain.readableLeft();
  if ((!reading && options_.readOnly) || size % kSectorSize != 0 || !insideDisk(sector, size / kSectorSize)) {
    return kIoError;
  }
  request.type = reading ? DiskRequest::Type::kRead : DiskRequest::Type::kWrite;
  request.offset = sector * kSectorSize;
  if (reading) {
    request.chain.writableIovecs(size, request.parts);
  } else {
    request.chain.takeReadable(size, request.parts);
  }
  request.durable = writesThrough();
  return std::nullopt;
}

std::optional<uint8_t> Blk::prepareRanges(Request& request) {
  const bool discards = request.command == kDiscard;
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
      request.ranges.push_back(
          {segment->sector * kSectorSize, segment->sectors * kSectorSize, (segment->flags & kUnmap) != 0});
    }
  }
  request.type = discards ? DiskRequest::Type::kDiscard : DiskRequest::Type::kZero;
  request.durable = writesThrough();
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
  if (request.type == DiskRequest::Type::kRead) {
    request.chain.advanceWritten(request.done);
    metrics.bytesRead.fetch_add(request.done, std::memory_order_relaxed);
  } else if (request.type == DiskRequest::Type::kWrite) {
    metrics.bytesWritten.fetch_add(request.done, std::memory_order_relaxed);
  }
  if (request.error == 0) {
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
  const char* what = "flushing";
  switch (request.type) {
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
  const uint64_t offset =
      request.ranges.empty() ? request.offset + request.done : request.ranges.front().offset;
  std::string message = std::string("I/O error while ") + what;
  if (request.type != DiskRequest::Type::kFlush) {
    message += " at byte " + std::to_string(offset);
  }
  message += ": " + (request.beyondEnd ? "the file has become shorter than the disk"
                                       : std::generic_category().message(request.error));
  host_->log(message);
}

void Blk::answer(Request& request, uint8_t status) {
  Chain& chain = request.chain;
  chain.writeAt(chain.writableSize() - 1, &status, 1);
  host_->queue(request.queue).push(chain.head(), chain.written() + 1);
}

void Blk::finished(DiskRequest& disk) {
  auto& request = static_cast<Request&>(disk);
  if (request.slot >= inFlight_.size() || inFlight_[request.slot].get() != &request) {
    return;
  }
  answer(request, statusOf(request));
  touched_ |= 1u << request.queue;
  const size_t slot = request.slot;
  std::swap(inFlight_[slot], inFlight_.back());
  inFlight_[slot]->slot = slot;
  keep(std::move(inFlight_.back()));
  inFlight_.pop_back();
}

void Blk::settled() {
  for (uint16_t i = 0; touched_ != 0; i++, touched_ >>= 1) {
    if ((touched_ & 1) != 0) {
      host_->signalQueue(i);
    }
  }
  if (!inFlight_.empty()) {
    return;
  }
  if (replacing_) {
    // Not from inside the disk that has just finished.
    replaceSoon();
  }
  if (pauseDone_) {
    std::exchange(pauseDone_, nullptr)();
  }
}

}  // namespace tsvmm::virtio
