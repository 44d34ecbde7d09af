/**
 * The hostile guest: a page of machine code that carries out a list of operations which the test has put into guest memory.
 * It knows nothing of virtio: what it does to which register or ring is the test's choice, in TypeScript.
 *
 * A vCPU sleeps until its doorbell (a message-signalled interrupt) rings, takes the program's address from its mailbox, runs it and
 * says so on a port.
 */

/** Vector of the doorbell. */
export const DOORBELL_VECTOR = 0x40;
/** Device n interrupts with this vector + n, where the rig delivers its interrupts to the guest. */
export const DEVICE_VECTOR = 0x50;
export const DEVICE_VECTORS = 16;
/** A vCPU writes its number there when its program has ended. */
export const DONE_PORT = 0x600;
/** How often each device has interrupted vCPU 0: 32 bits each. */
export const INTERRUPT_COUNTERS = 0x14000;

/** The mailbox, one a vCPU; the stack comes down to it from the end of its page. */
export const mailbox = { program: 0, abort: 8, vcpu: 16, size: 0x1000 } as const;

/** An operation in guest memory: 64 bytes. */
const OPERATION_SIZE = 64;

const CODES = {
  end: 0,
  write: 1,
  read: 2,
  wait: 3,
  waitNot: 4,
  add: 5,
  copy: 6,
  repeat: 7,
  match: 8,
  loop: 9,
  differ: 10,
} as const;

export type Width = 1 | 2 | 4 | 8;

export interface Operation {
  readonly code: keyof typeof CODES;
  readonly width?: Width;
  readonly address?: number;
  readonly value?: number | bigint;
  readonly mask?: number | bigint;
  /** A wait also ends when the 32 bits there have one of the bits of `orMask`. */
  readonly orAddress?: number;
  readonly orMask?: number;
  /** `repeat` and `loop`: how many operations back it leads. */
  readonly back?: number;
}

/** What became of an operation. */
export interface OperationResult {
  /** What was read last. */
  readonly value: bigint;
  /** `other`: a wait ended by its second condition; `aborted`: it would have waited for ever. */
  readonly outcome: 'skipped' | 'done' | 'aborted' | 'other';
}

const OUTCOMES = ['skipped', 'done', 'aborted', 'other'] as const;

/** Stores to RAM or to a register. */
export const write = (width: Width, address: number, value: number | bigint): Operation => ({
  code: 'write',
  width,
  address,
  value,
});

/** Loads from RAM or from a register; the result's `value`. */
export const read = (width: Width, address: number): Operation => ({ code: 'read', width, address });

/** Waits until (load & mask) is `value`, or the second condition holds. */
export const wait = (
  width: Width,
  address: number,
  value: number | bigint,
  more: Pick<Operation, 'mask' | 'orAddress' | 'orMask'> = {},
): Operation => ({ code: 'wait', width, address, value, ...more });

/** Waits until (load & mask) is not `value`. */
export const waitNot = (
  width: Width,
  address: number,
  value: number | bigint,
  more: Pick<Operation, 'mask' | 'orAddress' | 'orMask'> = {},
): Operation => ({ code: 'waitNot', width, address, value, ...more });

/** Adds to what is stored there (not atomically). */
export const add = (width: Width, address: number, value: number | bigint): Operation => ({
  code: 'add',
  width,
  address,
  value,
});

/** Copies `length` bytes. */
export const copy = (from: number, to: number, length: number): Operation => ({
  code: 'copy',
  address: to,
  value: from,
  mask: length,
});

/** Does the `operations` `times` times, at least once. */
export const repeat = (times: number, operations: readonly Operation[]): Operation[] => [
  ...operations,
  { code: 'repeat', value: times, back: operations.length },
];

/** Waits until what is stored at two places is the same, or the second condition holds. */
export const match = (
  width: Width,
  address: number,
  other: number,
  more: Pick<Operation, 'orAddress' | 'orMask'> = {},
): Operation => ({ code: 'match', width, address, value: other, ...more });

/** Waits until what is stored at two places differs. */
export const differ = (width: Width, address: number, other: number): Operation => ({
  code: 'differ',
  width,
  address,
  value: other,
});

/** Does the `operations` again and again until the 32 bits at `flag` are not 0. */
export const until = (flag: number, operations: readonly Operation[]): Operation[] => [
  ...operations,
  { code: 'loop', orAddress: flag, orMask: 0xffff_ffff, back: operations.length },
];

/** The bytes of a program that is to lie at `at`. */
export function encodeProgram(operations: readonly Operation[], at: number): Uint8Array {
  const bytes = new Uint8Array((operations.length + 1) * OPERATION_SIZE);
  const view = new DataView(bytes.buffer);
  [...operations, { code: 'end' } as Operation].forEach((operation, i) => {
    const to = i * OPERATION_SIZE;
    view.setUint32(to, CODES[operation.code], true);
    view.setUint32(to + 4, operation.width ?? 4, true);
    const address =
      operation.back === undefined ? operation.address : at + (i - operation.back) * OPERATION_SIZE;
    view.setBigUint64(to + 8, BigInt(address ?? 0), true);
    view.setBigUint64(to + 16, BigInt.asUintN(64, BigInt(operation.value ?? 0)), true);
    view.setBigUint64(to + 24, BigInt(operation.mask ?? 0xffff_ffff_ffff_ffffn), true);
    view.setBigUint64(to + 32, BigInt(operation.orAddress ?? 0), true);
    view.setUint32(to + 40, operation.orMask ?? 0, true);
  });
  return bytes;
}

export function decodeResults(bytes: Uint8Array, count: number): OperationResult[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return Array.from({ length: count }, (_, i) => ({
    value: view.getBigUint64(i * OPERATION_SIZE + 48, true),
    outcome: OUTCOMES[view.getUint32(i * OPERATION_SIZE + 56, true)] ?? 'skipped',
  }));
}

/** What a failed wait was for, in words. */
export function describe(operation: Operation): string {
  const { code, width = 4, address = 0, value = 0 } = operation;
  const hex = (n: number | bigint): string => `0x${n.toString(16)}`;
  return `${code} ${width * 8} bits at ${hex(address)}, ${hex(value)}`;
}

/** For assemble(), in 64 bits. rbp: the mailbox. rsp: the stack. */
export const INTERPRETER = `
    mov $0xff, %al
    out %al, $0x21
    mov $0xfee00000, %ebx
    movl $0x1ff, 0xf0(%rbx)        # the local APIC on
  idle:
    cli
    mov (%rbp), %rsi
    test %rsi, %rsi
    jnz begin
    sti
    hlt
    jmp idle
  begin:
    movq $0, (%rbp)
    sti
  step:
    mov (%rsi), %eax               # operation
    mov 4(%rsi), %ecx              # width
    mov 8(%rsi), %rdi              # address
    mov 16(%rsi), %rdx             # value
    test %eax, %eax
    jz end
    dec %eax
    jz do_write
    dec %eax
    jz do_read
    dec %eax
    jz do_wait
    dec %eax
    jz do_wait_not
    dec %eax
    jz do_add
    dec %eax
    jz do_copy
    dec %eax
    jz do_repeat
    dec %eax
    jz do_match
    dec %eax
    jz do_loop
    dec %eax
    jz do_differ
    ud2
  done:
    movl $1, 56(%rsi)
    add $64, %rsi
    jmp step
  end:
    mov 16(%rbp), %eax
    mov $${DONE_PORT}, %dx
    out %eax, %dx
    jmp idle

  do_write:
    call store
    jmp done
  do_read:
    call load
    mov %rax, 48(%rsi)
    jmp done
  do_wait:
    call load
    mov %rax, 48(%rsi)
    and 24(%rsi), %rax
    cmp %rax, %rdx
    je done
    call otherwise
    jz do_wait
    jmp ended
  do_wait_not:
    call load
    mov %rax, 48(%rsi)
    and 24(%rsi), %rax
    cmp %rax, %rdx
    jne done
    call otherwise
    jz do_wait_not
  ended:                           # eax: the outcome
    mov %eax, 56(%rsi)
    add $64, %rsi
    jmp step
  do_add:
    call load
    add %rax, %rdx
    call store
    jmp done
  do_copy:
    mov 24(%rsi), %rcx
    mov %rsi, %rbx
    mov %rdx, %rsi
    cld
    rep movsb
    mov %rbx, %rsi
    jmp done
  do_repeat:
    movl $1, 56(%rsi)
    dec %rdx
    jz 1f
    mov %rdx, 16(%rsi)
    mov %rdi, %rsi
    jmp step
  1:
    add $64, %rsi
    jmp step

  do_match:
    mov 8(%rsi), %rdi
    call load
    mov %rax, 48(%rsi)
    mov 16(%rsi), %rdi
    call load
    cmp %rax, 48(%rsi)
    je done
    call otherwise
    jz do_match
    jmp ended
  do_differ:
    mov 8(%rsi), %rdi
    call load
    mov %rax, 48(%rsi)
    mov 16(%rsi), %rdi
    call load
    cmp %rax, 48(%rsi)
    jne done
    call otherwise
    jz do_differ
    jmp ended
  do_loop:
    call otherwise
    jnz done
    mov %rdi, %rsi
    jmp step

  otherwise:                       # whether a wait ends another way: eax, and the zero flag if it does not
    mov 32(%rsi), %rbx
    test %rbx, %rbx
    jz 1f
    mov (%rbx), %eax
    and 40(%rsi), %eax
    jz 1f
    mov $3, %eax
    test %eax, %eax
    ret
  1:
    mov 8(%rbp), %eax
    test %eax, %eax
    jz 2f
    mov $2, %eax
    test %eax, %eax
  2:
    ret

  load:                            # rax: ecx bytes at rdi
    xor %eax, %eax
    cmp $1, %ecx
    je 1f
    cmp $2, %ecx
    je 2f
    cmp $4, %ecx
    je 4f
    mov (%rdi), %rax
    ret
  1:
    mov (%rdi), %al
    ret
  2:
    mov (%rdi), %ax
    ret
  4:
    mov (%rdi), %eax
    ret
  store:                           # ecx bytes of rdx to rdi
    cmp $1, %ecx
    je 1f
    cmp $2, %ecx
    je 2f
    cmp $4, %ecx
    je 4f
    mov %rdx, (%rdi)
    ret
  1:
    mov %dl, (%rdi)
    ret
  2:
    mov %dx, (%rdi)
    ret
  4:
    mov %edx, (%rdi)
    ret

  doorbell:
    push %rbx
    mov $0xfee00000, %ebx
    movl $0, 0xb0(%rbx)            # end of interrupt
    pop %rbx
    iretq
${Array.from({ length: DEVICE_VECTORS }, (_, i) => `  device${i}: incl ${INTERRUPT_COUNTERS + 4 * i}\n    jmp doorbell`).join('\n')}
`;
