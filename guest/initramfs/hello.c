// The smallest guest that proves a boot: /init of hello.cpio prints a line and powers off. The boot tests and
// the benchmark run it. It has no C library, so that what they measure is the machine and the kernel.

#include <asm/ioctls.h>
#include <asm/unistd_64.h>
#include <linux/reboot.h>

static long call(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
}

void _start(void) {
  static const char kHello[] = "hello from tsvmm\n";
  // The kernel has opened /dev/console as our standard streams.
  call(__NR_write, 1, (long)kHello, sizeof kHello - 1, 0);
  // The serial port sends by interrupt: without this wait (tcdrain) the power goes before the line does.
  call(__NR_ioctl, 1, TCSBRK, 1, 0);
  call(__NR_reboot, (int)LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
  call(__NR_reboot, (int)LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0);
  call(__NR_exit, 0, 0, 0, 0);
  __builtin_unreachable();
}
