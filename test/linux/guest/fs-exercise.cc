// Runs in a guest, in a folder that is on virtio-fs, and does what ordinary programs do to files. One line a
// case: "ok NAME" or "not ok NAME: WHY". With --compare it says what calls return instead (fs-compare.cc).
#include "fs-exercise.h"

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "--exit") == 0) return atoi(argv[2]);
  const bool comparing = argc == 3 && strcmp(argv[1], "--compare") == 0;
  if ((argc != 2 && !comparing) || chdir(argv[argc - 1]) != 0) {
    fprintf(stderr, "usage: fs-exercise [--compare] FOLDER\n");
    return 2;
  }
  umask(022);
  if (comparing) {
    compare();
    return 0;
  }
  int failures = 0;
  for (const auto* cases : {&kContentCases, &kNameCases, &kRightsCases, &kProcessCases}) {
    for (const Case& one : *cases) {
      try {
        one.body();
        printf("ok %s\n", one.name);
      } catch (const std::exception& error) {
        printf("not ok %s: %s\n", one.name, error.what());
        failures++;
      }
      fflush(stdout);
    }
  }
  return failures == 0 ? 0 : 1;
}
