#pragma once

#include <termios.h>

#include <cstdint>
#include <string>

#include "exec/options.h"
#include "io/fd.h"

namespace tsvmm::exec {

/// The terminal on this side of a process that has one: the pty that was made for a console socket, or the
/// program's own.
class Console {
 public:
  struct Size {
    uint16_t rows = 0;
    uint16_t columns = 0;
  };

  ~Console() { restore(); }

  /// Makes what the options ask for. False with an error for people.
  bool open(const Options& options, std::string& error);
  /// Puts the program's own terminal in raw mode, once more where somebody has changed it back.
  void makeRaw();
  /// As it was found.
  void restore();

  bool isPty() const { return static_cast<bool>(slave_); }
  int slave() const { return slave_.get(); }
  /// False where there is no terminal, or it has no size.
  bool size(Size& size) const;

 private:
  bool openPty(const Options& options, std::string& error);

  Fd slave_;
  int own_ = -1;  // standard input or output
  bool raw_ = false;
  termios found_{};
};

}  // namespace tsvmm::exec
