/** Numbers of the KVM interface, under their names in linux/kvm.h and asm/kvm.h (Linux, x86-64). */

// ioctl numbers (linux/ioctl.h): direction in bits 30-31, size of the struct in 16-29, KVM's letter in 8-15.
const KVMIO = 0xae;
const _IO = (nr: number): number => (KVMIO << 8) | nr;
const _IOW = (nr: number, size: number): number => ((1 << 30) | (size << 16) | (KVMIO << 8) | nr) >>> 0;
const _IOR = (nr: number, size: number): number => ((2 << 30) | (size << 16) | (KVMIO << 8) | nr) >>> 0;
const _IOWR = (nr: number, size: number): number => ((3 << 30) | (size << 16) | (KVMIO << 8) | nr) >>> 0;

/** Sizes of the structs in bytes; of those that end in a flexible array, of the head before it. */
export const sizes = {
  kvm_clear_dirty_log: 24,
  kvm_clock_data: 48,
  kvm_cpuid2: 8,
  kvm_cpuid_entry2: 40,
  kvm_debugregs: 128,
  kvm_dirty_log: 16,
  kvm_enable_cap: 104,
  kvm_fpu: 416,
  kvm_guest_debug: 72,
  kvm_interrupt: 4,
  kvm_ioeventfd: 64,
  kvm_irq_level: 8,
  kvm_irq_routing: 8,
  kvm_irq_routing_entry: 48,
  kvm_irqchip: 520,
  kvm_irqfd: 32,
  kvm_lapic_state: 1024,
  kvm_mp_state: 4,
  kvm_msi: 32,
  kvm_msr_entry: 16,
  kvm_msr_list: 4,
  kvm_msrs: 8,
  kvm_pit_config: 64,
  kvm_pit_state2: 112,
  kvm_regs: 144,
  kvm_sregs: 312,
  kvm_sregs2: 320,
  kvm_translation: 24,
  kvm_userspace_memory_region: 32,
  kvm_vcpu_events: 64,
  kvm_xcrs: 392,
  kvm_xsave: 4096,
} as const;

export const KVM_API_VERSION = 12;

// On /dev/kvm.
export const KVM_GET_API_VERSION = _IO(0x00);
export const KVM_CREATE_VM = _IO(0x01);
export const KVM_GET_MSR_INDEX_LIST = _IOWR(0x02, sizes.kvm_msr_list);
export const KVM_CHECK_EXTENSION = _IO(0x03);
export const KVM_GET_VCPU_MMAP_SIZE = _IO(0x04);
export const KVM_GET_SUPPORTED_CPUID = _IOWR(0x05, sizes.kvm_cpuid2);
export const KVM_GET_MSR_FEATURE_INDEX_LIST = _IOWR(0x0a, sizes.kvm_msr_list);

// On a VM.
export const KVM_CREATE_VCPU = _IO(0x41);
export const KVM_GET_DIRTY_LOG = _IOW(0x42, sizes.kvm_dirty_log);
export const KVM_SET_USER_MEMORY_REGION = _IOW(0x46, sizes.kvm_userspace_memory_region);
export const KVM_SET_TSS_ADDR = _IO(0x47);
export const KVM_SET_IDENTITY_MAP_ADDR = _IOW(0x48, 8);
export const KVM_CREATE_IRQCHIP = _IO(0x60);
export const KVM_IRQ_LINE = _IOW(0x61, sizes.kvm_irq_level);
export const KVM_GET_IRQCHIP = _IOWR(0x62, sizes.kvm_irqchip);
export const KVM_SET_IRQCHIP = _IOR(0x63, sizes.kvm_irqchip);
export const KVM_SET_GSI_ROUTING = _IOW(0x6a, sizes.kvm_irq_routing);
export const KVM_IRQFD = _IOW(0x76, sizes.kvm_irqfd);
export const KVM_CREATE_PIT2 = _IOW(0x77, sizes.kvm_pit_config);
export const KVM_SET_BOOT_CPU_ID = _IO(0x78);
export const KVM_IOEVENTFD = _IOW(0x79, sizes.kvm_ioeventfd);
export const KVM_SET_CLOCK = _IOW(0x7b, sizes.kvm_clock_data);
export const KVM_GET_CLOCK = _IOR(0x7c, sizes.kvm_clock_data);
export const KVM_GET_PIT2 = _IOR(0x9f, sizes.kvm_pit_state2);
export const KVM_SET_PIT2 = _IOW(0xa0, sizes.kvm_pit_state2);
export const KVM_SIGNAL_MSI = _IOW(0xa5, sizes.kvm_msi);
export const KVM_CLEAR_DIRTY_LOG = _IOWR(0xc0, sizes.kvm_clear_dirty_log);

// On a VM or a vCPU.
export const KVM_ENABLE_CAP = _IOW(0xa3, sizes.kvm_enable_cap);

// On a vCPU; KVM_GET_MSRS on /dev/kvm too.
export const KVM_RUN = _IO(0x80);
export const KVM_GET_REGS = _IOR(0x81, sizes.kvm_regs);
export const KVM_SET_REGS = _IOW(0x82, sizes.kvm_regs);
export const KVM_GET_SREGS = _IOR(0x83, sizes.kvm_sregs);
export const KVM_SET_SREGS = _IOW(0x84, sizes.kvm_sregs);
export const KVM_TRANSLATE = _IOWR(0x85, sizes.kvm_translation);
export const KVM_INTERRUPT = _IOW(0x86, sizes.kvm_interrupt);
export const KVM_GET_MSRS = _IOWR(0x88, sizes.kvm_msrs);
export const KVM_SET_MSRS = _IOW(0x89, sizes.kvm_msrs);
export const KVM_GET_FPU = _IOR(0x8c, sizes.kvm_fpu);
export const KVM_SET_FPU = _IOW(0x8d, sizes.kvm_fpu);
export const KVM_GET_LAPIC = _IOR(0x8e, sizes.kvm_lapic_state);
export const KVM_SET_LAPIC = _IOW(0x8f, sizes.kvm_lapic_state);
export const KVM_SET_CPUID2 = _IOW(0x90, sizes.kvm_cpuid2);
export const KVM_GET_CPUID2 = _IOWR(0x91, sizes.kvm_cpuid2);
export const KVM_GET_MP_STATE = _IOR(0x98, sizes.kvm_mp_state);
export const KVM_SET_MP_STATE = _IOW(0x99, sizes.kvm_mp_state);
export const KVM_NMI = _IO(0x9a);
export const KVM_SET_GUEST_DEBUG = _IOW(0x9b, sizes.kvm_guest_debug);
export const KVM_GET_VCPU_EVENTS = _IOR(0x9f, sizes.kvm_vcpu_events);
export const KVM_SET_VCPU_EVENTS = _IOW(0xa0, sizes.kvm_vcpu_events);
export const KVM_GET_DEBUGREGS = _IOR(0xa1, sizes.kvm_debugregs);
export const KVM_SET_DEBUGREGS = _IOW(0xa2, sizes.kvm_debugregs);
export const KVM_SET_TSC_KHZ = _IO(0xa2);
export const KVM_GET_TSC_KHZ = _IO(0xa3);
export const KVM_GET_XSAVE = _IOR(0xa4, sizes.kvm_xsave);
export const KVM_SET_XSAVE = _IOW(0xa5, sizes.kvm_xsave);
export const KVM_GET_XCRS = _IOR(0xa6, sizes.kvm_xcrs);
export const KVM_SET_XCRS = _IOW(0xa7, sizes.kvm_xcrs);
export const KVM_KVMCLOCK_CTRL = _IO(0xad);
export const KVM_GET_SREGS2 = _IOR(0xcc, sizes.kvm_sregs2);
export const KVM_SET_SREGS2 = _IOW(0xcd, sizes.kvm_sregs2);
export const KVM_GET_XSAVE2 = _IOR(0xcf, sizes.kvm_xsave);

// kvm_run.exit_reason
export const KVM_EXIT_UNKNOWN = 0;
export const KVM_EXIT_EXCEPTION = 1;
export const KVM_EXIT_IO = 2;
export const KVM_EXIT_HYPERCALL = 3;
export const KVM_EXIT_DEBUG = 4;
export const KVM_EXIT_HLT = 5;
export const KVM_EXIT_MMIO = 6;
export const KVM_EXIT_IRQ_WINDOW_OPEN = 7;
export const KVM_EXIT_SHUTDOWN = 8;
export const KVM_EXIT_FAIL_ENTRY = 9;
export const KVM_EXIT_INTR = 10;
export const KVM_EXIT_INTERNAL_ERROR = 17;
export const KVM_EXIT_SYSTEM_EVENT = 24;
export const KVM_EXIT_IO_IN = 0;
export const KVM_EXIT_IO_OUT = 1;

// kvm_run.internal.suberror
export const KVM_INTERNAL_ERROR_EMULATION = 1;
export const KVM_INTERNAL_ERROR_SIMUL_EX = 2;
export const KVM_INTERNAL_ERROR_DELIVERY_EV = 3;
export const KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4;
/** In the flags of an emulation failure: the bytes of the instruction follow. */
export const KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1n;

// kvm_run.system_event.type
export const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
export const KVM_SYSTEM_EVENT_RESET = 2;
export const KVM_SYSTEM_EVENT_CRASH = 3;

// Flags
export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
export const KVM_MEM_READONLY = 1 << 1;
export const KVM_IRQFD_FLAG_DEASSIGN = 1 << 0;
export const KVM_IRQFD_FLAG_RESAMPLE = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0;
export const KVM_IOEVENTFD_FLAG_PIO = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2;
export const KVM_PIT_SPEAKER_DUMMY = 1;
export const KVM_CLOCK_TSC_STABLE = 2;
export const KVM_CLOCK_REALTIME = 1 << 2;
export const KVM_CLOCK_HOST_TSC = 1 << 3;
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0;
export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;
export const KVM_MSI_VALID_DEVID = 1 << 0;
export const KVM_IRQCHIP_PIC_MASTER = 0;
export const KVM_IRQCHIP_PIC_SLAVE = 1;
export const KVM_IRQCHIP_IOAPIC = 2;
export const KVM_IOAPIC_NUM_PINS = 24;
export const KVM_MAX_XCRS = 16;
export const KVM_GUESTDBG_ENABLE = 0x1;
export const KVM_GUESTDBG_SINGLESTEP = 0x2;
export const KVM_GUESTDBG_USE_SW_BP = 0x10000;
export const KVM_GUESTDBG_USE_HW_BP = 0x20000;
export const KVM_VCPUEVENT_VALID_NMI_PENDING = 0x1;
export const KVM_VCPUEVENT_VALID_SIPI_VECTOR = 0x2;
export const KVM_VCPUEVENT_VALID_SHADOW = 0x4;
export const KVM_VCPUEVENT_VALID_SMM = 0x8;
export const KVM_VCPUEVENT_VALID_PAYLOAD = 0x10;
export const KVM_VCPUEVENT_VALID_TRIPLE_FAULT = 0x20;
export const KVM_SREGS2_FLAGS_PDPTRS_VALID = 1n;
export const KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1n << 0n;
export const KVM_DIRTY_LOG_INITIALLY_SET = 1n << 1n;

// kvm_mp_state.mp_state
export const KVM_MP_STATE_RUNNABLE = 0;
export const KVM_MP_STATE_UNINITIALIZED = 1;
export const KVM_MP_STATE_INIT_RECEIVED = 2;
export const KVM_MP_STATE_HALTED = 3;
export const KVM_MP_STATE_SIPI_RECEIVED = 4;

// Capabilities (KVM_CHECK_EXTENSION) that mean something on x86-64.
export const KVM_CAP_IRQCHIP = 0;
export const KVM_CAP_USER_MEMORY = 3;
export const KVM_CAP_SET_TSS_ADDR = 4;
export const KVM_CAP_EXT_CPUID = 7;
export const KVM_CAP_CLOCKSOURCE = 8;
export const KVM_CAP_NR_VCPUS = 9;
export const KVM_CAP_NR_MEMSLOTS = 10;
export const KVM_CAP_MP_STATE = 14;
export const KVM_CAP_SYNC_MMU = 16;
export const KVM_CAP_DESTROY_MEMORY_REGION_WORKS = 21;
export const KVM_CAP_USER_NMI = 22;
export const KVM_CAP_SET_GUEST_DEBUG = 23;
export const KVM_CAP_IRQ_ROUTING = 25;
export const KVM_CAP_MCE = 31;
export const KVM_CAP_IRQFD = 32;
export const KVM_CAP_PIT2 = 33;
export const KVM_CAP_SET_BOOT_CPU_ID = 34;
export const KVM_CAP_PIT_STATE2 = 35;
export const KVM_CAP_IOEVENTFD = 36;
export const KVM_CAP_SET_IDENTITY_MAP_ADDR = 37;
export const KVM_CAP_ADJUST_CLOCK = 39;
export const KVM_CAP_INTERNAL_ERROR_DATA = 40;
export const KVM_CAP_VCPU_EVENTS = 41;
export const KVM_CAP_DEBUGREGS = 50;
export const KVM_CAP_ENABLE_CAP = 54;
export const KVM_CAP_XSAVE = 55;
export const KVM_CAP_XCRS = 56;
export const KVM_CAP_TSC_CONTROL = 60;
export const KVM_CAP_GET_TSC_KHZ = 61;
export const KVM_CAP_MAX_VCPUS = 66;
export const KVM_CAP_TSC_DEADLINE_TIMER = 72;
export const KVM_CAP_SYNC_REGS = 74;
export const KVM_CAP_KVMCLOCK_CTRL = 76;
export const KVM_CAP_SIGNAL_MSI = 77;
export const KVM_CAP_READONLY_MEM = 81;
export const KVM_CAP_IRQFD_RESAMPLE = 82;
export const KVM_CAP_ENABLE_CAP_VM = 98;
export const KVM_CAP_IOEVENTFD_NO_LENGTH = 100;
export const KVM_CAP_CHECK_EXTENSION_VM = 105;
export const KVM_CAP_SPLIT_IRQCHIP = 121;
export const KVM_CAP_IOEVENTFD_ANY_LENGTH = 122;
export const KVM_CAP_MAX_VCPU_ID = 128;
export const KVM_CAP_X2APIC_API = 129;
export const KVM_CAP_IMMEDIATE_EXIT = 136;
export const KVM_CAP_X86_DISABLE_EXITS = 143;
export const KVM_CAP_GET_MSR_FEATURES = 153;
export const KVM_CAP_NESTED_STATE = 157;
export const KVM_CAP_EXCEPTION_PAYLOAD = 164;
export const KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
export const KVM_CAP_HALT_POLL = 182;
export const KVM_CAP_DIRTY_LOG_RING = 192;
export const KVM_CAP_SREGS2 = 200;
export const KVM_CAP_EXIT_ON_EMULATION_FAILURE = 204;
export const KVM_CAP_VM_GPA_BITS = 207;
export const KVM_CAP_XSAVE2 = 208;
export const KVM_CAP_SYSTEM_EVENT_DATA = 215;
export const KVM_CAP_X86_TRIPLE_FAULT_EVENT = 218;

// Model-specific registers (Intel SDM volume 4; the KVM ones: Documentation/virt/kvm/x86/msr.rst).
export const MSR_IA32_TSC = 0x10;
export const MSR_IA32_APICBASE = 0x1b;
export const MSR_IA32_MTRR_DEF_TYPE = 0x2ff;
export const MSR_IA32_SYSENTER_CS = 0x174;
export const MSR_IA32_SYSENTER_ESP = 0x175;
export const MSR_IA32_SYSENTER_EIP = 0x176;
export const MSR_IA32_MISC_ENABLE = 0x1a0;
export const MSR_IA32_CR_PAT = 0x277;
export const MSR_IA32_TSC_DEADLINE = 0x6e0;
export const MSR_EFER = 0xc0000080;
export const MSR_STAR = 0xc0000081;
export const MSR_LSTAR = 0xc0000082;
export const MSR_CSTAR = 0xc0000083;
export const MSR_SYSCALL_MASK = 0xc0000084;
export const MSR_FS_BASE = 0xc0000100;
export const MSR_GS_BASE = 0xc0000101;
export const MSR_KERNEL_GS_BASE = 0xc0000102;
export const MSR_TSC_AUX = 0xc0000103;
export const MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00;
export const MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01;

// CPUID leaves of the hypervisor (Documentation/virt/kvm/x86/cpuid.rst).
export const KVM_CPUID_SIGNATURE = 0x40000000;
export const KVM_CPUID_FEATURES = 0x40000001;
