import { examine, type Finding, healthy } from '../runtime/doctor.js';
import { hostProbes } from '../runtime/host-probes.js';
import { printLine } from '../runtime/output.js';
import { parseArguments, UsageError } from './arguments.js';

export const usage = `usage: tsvmm doctor [--json]

Tells whether this host can run microVMs: what is behind /dev/kvm, the rights to it, the capabilities that are needed,
the native addon, the guest's files, packages and memory; what is missing comes with its remedy.

Status: 0 everything needed is there; 1 something is missing; 125 tsvmm failed.`;

export async function main(args: readonly string[]): Promise<number> {
  const { options, positionals } = parseArguments(args, { json: 'flag' });
  if (positionals[0] !== undefined) throw new UsageError(`doctor: unexpected argument ${positionals[0]}`);
  const findings = examine(hostProbes());
  const ok = healthy(findings);
  printLine(options.json === true ? JSON.stringify({ ok, findings }, undefined, 2) : asText(findings, ok));
  return ok ? 0 : 1;
}

const MARKS = { ok: 'ok', warning: 'warning', missing: 'MISSING' } as const;

function asText(findings: readonly Finding[], ok: boolean): string {
  const lines = findings.flatMap(({ name, state, detail, remedy }) => [
    `${MARKS[state].padEnd(8)} ${name}: ${detail}`,
    ...(remedy === undefined ? [] : [`         -> ${remedy}`]),
  ]);
  lines.push('', ok ? 'This host can run microVMs.' : 'This host cannot run microVMs as it is.');
  return lines.join('\n');
}
