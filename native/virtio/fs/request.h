#pragma once

#include <linux/fuse.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <type_traits>

namespace tsvmm::virtio::fs {

/// Goes front to back through scattered memory, which may be the guest's: its bytes can change at any time,
/// so what is checked has been copied out before. The pieces themselves are the caller's to lend; the cursor
/// changes them.
class IovCursor {
 public:
  IovCursor() = default;
  explicit IovCursor(std::span<iovec> pieces);

  /// How many bytes are left.
  uint64_t left() const { return left_; }
  /// Forgets what lies beyond the next `length` bytes.
  void limit(uint64_t length);
  /// Copies the next bytes out; false (and nothing consumed) if there are fewer than `length`.
  bool read(void* to, size_t length);
  /// Copies to the next bytes; false (and nothing written) if there is less room than `length`.
  bool write(const void* from, size_t length);
  /// What is left, at most `length` bytes, for system calls. The cursor is at its end afterwards.
  std::span<iovec> rest(uint64_t length);
  /// Takes the next `length` bytes, at most N pieces of at least one byte each, as they are.
  template <size_t N>
  size_t take(std::array<iovec, N>& to, size_t length) {
    if (length > left_ || length > N) {
      return 0;
    }
    size_t count = 0;
    while (length > 0) {
      const size_t part = std::min(length, pieces_.front().iov_len);
      to[count++] = {pieces_.front().iov_base, part};
      advance(part);
      length -= part;
    }
    return count;
  }

 private:
  void advance(size_t length);

  std::span<iovec> pieces_;
  uint64_t left_ = 0;
};

/// Where a reply goes, kept apart from the request: for one that is answered later.
class ReplySlot {
 public:
  static constexpr size_t kHeader = sizeof(fuse_out_header);
  static constexpr size_t kMaxPayload = 32;  ///< bytes a late reply may carry

  ReplySlot() = default;
  /// Takes the header's place from the front of `out`.
  explicit ReplySlot(IovCursor& out) : headerPieces_(out.take(header_, kHeader)) {}

  /// Whether a reply, if only a header, can be given at all.
  explicit operator bool() const { return headerPieces_ != 0; }
  /// Also takes the first bytes of the payload's place, for writePayload().
  void takePayload(IovCursor& out) {
    payloadPieces_ = out.take(payload_, std::min<uint64_t>(out.left(), kMaxPayload));
  }
  bool writePayload(const void* bytes, size_t length) {
    return IovCursor(std::span(payload_).first(payloadPieces_)).write(bytes, length);
  }
  /// Writes the header: an errno (then the payload does not count) or 0. Returns the reply's length.
  uint32_t finish(uint64_t unique, int error, uint32_t payload);

 private:
  std::array<iovec, kHeader> header_;
  std::array<iovec, kMaxPayload> payload_;
  size_t headerPieces_ = 0;
  size_t payloadPieces_ = 0;
};

/// One FUSE request while it is served: what came in, and where the reply goes.
class Request {
 public:
  static constexpr size_t kMaxTail =
      72 * 1024;  ///< an extended attribute's value, its name and the fixed part

  /// `scratch` has kMaxTail bytes and is this request's until it is answered.
  Request(std::span<iovec> in, std::span<iovec> out, char* scratch, uint64_t ticket)
      : in(in), out(out), slot(this->out), ticket(ticket), scratch_(scratch) {}

  fuse_in_header header{};
  IovCursor in;   ///< behind the header
  IovCursor out;  ///< behind the reply's header
  ReplySlot slot;
  const uint64_t ticket;  ///< how the transport names this request

  /// Copies the header in and holds the rest to the length that it gives. 0, or an errno for the reply.
  int begin();
  /// The next fixed structure; false if the request is too short.
  template <typename T>
  bool take(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return in.read(&value, sizeof value);
  }
  /// The next NUL-terminated string. 0, or EINVAL (no NUL, empty) or ENAMETOOLONG (the request is too long).
  int takeString(const char*& string);
  /// The next string, which must name an entry of a folder: not `.`, not `..`, no slash. 0, EINVAL or
  /// ENAMETOOLONG.
  int takeName(const char*& name);
  /// The next `length` bytes behind the strings taken so far; nullptr if there are not so many.
  const char* takeBytes(size_t length);

  /// Appends to the reply; EINVAL if it does not fit, else 0.
  template <typename T>
  int reply(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return replyBytes(&value, sizeof value);
  }
  int replyBytes(const void* bytes, size_t length);
  /// Counts bytes that a system call has put behind what was appended.
  void addPayload(uint32_t length) { payload_ += length; }

  /// Writes the reply's header. Returns the reply's length.
  uint32_t finish(int error) { return slot.finish(header.unique, error, payload_); }

 private:
  int loadTail();

  uint32_t payload_ = 0;
  char* scratch_;
  const char* tail_ = nullptr;
  size_t tailLeft_ = 0;
};

}  // namespace tsvmm::virtio::fs
