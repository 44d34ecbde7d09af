"""Works around two faults of QEMU 7.2's emulation, from the background of the testbed, without doing anything.

One virtual machine that never runs: KVM patches its own code whenever the number of local APICs that are
software-disabled goes from 0 to 1 or back (the static key apic_sw_disabled), which each new vCPU does. With a thread
for each processor QEMU can keep a stale translation of code that is patched while another thread translates it: that
processor then takes the patch's breakpoint for ever (a soft lockup in __apic_accept_irq). With this machine the number
is never 0.

The real-time clock's interrupts, 64 a second: as a processor leaves a guest, QEMU changes its pending interrupts without
a lock, and one that its timer raises at that moment is not looked at until the next one is raised. On an idle machine
that would be never.
"""

import fcntl
import os
import signal

KVM_CREATE_VM = 0xAE01
KVM_CREATE_VCPU = 0xAE41
KVM_CREATE_IRQCHIP = 0xAE60
RTC_UIE_ON = 0x7003

kvm = os.open("/dev/kvm", os.O_RDWR)
vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
fcntl.ioctl(vm, KVM_CREATE_IRQCHIP, 0)
vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
clock = os.open("/dev/rtc0", os.O_RDONLY)
fcntl.ioctl(clock, RTC_UIE_ON)
if os.fork() == 0:
    os.setsid()
    signal.pause()
