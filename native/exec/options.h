#pragma once

#include <string>

namespace tsvmm::exec {

struct Options {
  std::string socket;         // the sandbox's control socket
  std::string pidFile;        // empty: none
  std::string consoleSocket;  // empty: none
  bool terminal = false;      // the process has a terminal; without a console socket: the one of this program
  bool report = false;
  int preserved = 0;
  unsigned rows = 0;  // of the pty for the console socket; 0: none set
  unsigned columns = 0;
};

/// False with an error for people where the arguments are wrong.
bool parseOptions(int argc, char** argv, Options& options, std::string& error);

}  // namespace tsvmm::exec
