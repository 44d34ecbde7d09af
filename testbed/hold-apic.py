"""Keeps one virtual machine in existence that never runs, in the background of the testbed.

KVM patches its own code whenever the number of local APICs that are software-disabled goes from 0 to 1 or back
(the static key apic_sw_disabled), which each new vCPU does. QEMU 7.2 with a thread for each processor can keep
a stale translation of code that is patched while another thread translates it: that processor then takes the
patch's breakpoint for ever (a soft lockup in __apic_accept_irq). With this machine the number is never 0.
"""

import fcntl
import os
import signal

KVM_CREATE_VM = 0xAE01
KVM_CREATE_VCPU = 0xAE41
KVM_CREATE_IRQCHIP = 0xAE60

kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
fcntl.ioctl(vm, KVM_CREATE_IRQCHIP, 0)
vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
if os.fork() == 0:
    os.setsid()
    signal.pause()
