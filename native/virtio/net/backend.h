#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

#include "virtio/net/header.h"

namespace tsvmm::virtio::net {

/// Where frames come from and go to on the host, in pairs of queues. Nothing blocks. One thread at a time.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual uint16_t pairs() const = 0;
  /// What to wait on for frames of a pair, and for room to write.
  virtual int descriptor(uint16_t pair) const = 0;
  /// The next frame behind its Header, into `parts` (which have room for any frame): how many bytes, header
  /// included; -EAGAIN: none now; another negative errno: see gone().
  virtual ssize_t read(uint16_t pair, std::span<const iovec> parts) = 0;
  /// Sends one frame of `size` bytes, which has passed checkTransmit(). parts[0] is free, for the backend to
  /// put there what precedes the frame. 0: sent; -EAGAIN: not taken, there is no room now; another negative
  /// errno: lost.
  virtual int write(uint16_t pair, const Header& header, std::span<iovec> parts, size_t size) = 0;
  /// Sends what write() has taken and could not yet send. False: there still is something.
  virtual bool flush(uint16_t /*pair*/) { return true; }
  /// Whether an error of read() or write() means that the backend will never work again.
  virtual bool gone(int error) const = 0;

  /// Which kGuestOffloads frames from read() may make use of. 0 or an errno.
  virtual int setOffloads(uint64_t /*features*/) { return 0; }
  /// How many pairs are in use, from the first on; 1 at first. 0 or an errno.
  virtual int setActivePairs(uint16_t /*count*/) { return 0; }
  /// Whether the cable is plugged, as the host sees it.
  virtual void setCarrier(bool /*up*/) {}
  /// For messages: `tap tap0`.
  virtual std::string name() const = 0;
};

}  // namespace tsvmm::virtio::net
