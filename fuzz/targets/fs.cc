// The file system device (native/virtio/fs/fs_device.cc): how requests lie in the queues. What is in them is
// fuse.cc's.
#include "support/driver.h"
#include "support/fuse_client.h"
#include "virtio/fs/fs_device.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const tsvmm::test::TempFolder folder;
  static tsvmm::fuzz::Driver driver(
      [] {
        tsvmm::virtio::fs::FuseOptions options;
        options.directory = folder.share();
        options.readOnly = true;
        return std::make_shared<tsvmm::virtio::fs::FsDevice>(options);
      },
      {16, 64}, 0);
  return driver.play(data, size);
}
