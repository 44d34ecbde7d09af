#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

int main(int argc, char** argv) {
  // A hostile request that asks for a file of terabytes must not get the disk of who runs the tests.
  const rlimit limit{256 << 20, 256 << 20};
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  return doctest::Context(argc, argv).run();
}
