/** Every number and struct size of src/kvm against the C headers of this machine, by way of the compiler. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { Struct } from '../../../src/kvm/codec.js';
import * as constants from '../../../src/kvm/constants.js';
import * as registers from '../../../src/kvm/registers.js';

/** Prints each name that the headers define and its value, in decimal. */
function fromHeaders(
  names: string[],
  expression: (name: string) => string,
  guard: boolean,
): Map<string, bigint> {
  const lines = names.map((name) => {
    const print = `printf("${name} %llu\\n", (unsigned long long)(${expression(name)}));`;
    return guard ? `#ifdef ${name}\n${print}\n#endif` : print;
  });
  const source = `
    #include <stdio.h>
    #include <stddef.h>
    #include <linux/kvm.h>
    #include <asm/kvm_para.h>
    int main(void) {
${lines.join('\n')}\nreturn 0; }`;
  const folder = mkdtempSync(join(tmpdir(), 'layout-'));
  try {
    writeFileSync(join(folder, 'layout.c'), source);
    execFileSync('gcc', ['-w', '-o', join(folder, 'layout'), join(folder, 'layout.c')]);
    const output = execFileSync(join(folder, 'layout'), { encoding: 'utf8' });
    return new Map(
      output
        .trim()
        .split('\n')
        .map((line) => line.split(' '))
        .map(([name, value]) => [name ?? '', BigInt(value ?? '')]),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

t.test('constants', async (t) => {
  const ours = Object.entries(constants).filter(
    (entry): entry is [string, number | bigint] =>
      entry[0].startsWith('KVM_') && typeof entry[1] !== 'object',
  );
  const theirs = fromHeaders(
    ours.map(([name]) => name),
    (name) => name,
    true,
  );
  t.ok(theirs.size > 150, `the headers know ${theirs.size} of ${ours.length} names`);
  for (const [name, value] of ours) {
    if (theirs.has(name) && theirs.get(name) !== BigInt(value)) {
      t.fail(`${name} is ${theirs.get(name)}, not ${value}`);
    }
  }
});

t.test('sizes of structs', async (t) => {
  const theirs = fromHeaders(Object.keys(constants.sizes), (name) => `sizeof(struct ${name})`, false);
  for (const [name, size] of Object.entries(constants.sizes)) {
    t.equal(theirs.get(name), BigInt(size), name);
  }
});

t.test('tables of members: size and the place of each', async (t) => {
  const tables: Struct<object>[] = [
    registers.kvmRegs(),
    registers.kvmSregs(),
    registers.kvmSregs2(),
    registers.kvmFpu(),
    registers.kvmDebugregs(),
    registers.kvmVcpuEvents(),
    registers.kvmTranslation(),
    registers.kvmPicState(),
    registers.kvmIoapicState(),
    registers.kvmPitState2(),
    registers.kvmClockData(),
    registers.kvmXcrs(),
  ];
  for (const table of tables) {
    const members = Object.keys(table.offsets);
    const theirs = fromHeaders(members, (member) => `offsetof(struct ${table.name}, ${member})`, false);
    const size = fromHeaders([table.name], (name) => `sizeof(struct ${name})`, false);
    t.equal(size.get(table.name), BigInt(table.size), `sizeof ${table.name}`);
    for (const member of members) {
      t.equal(theirs.get(member), BigInt(table.offsets[member] ?? -1), `${table.name}.${member}`);
    }
  }
});
