import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, reasonOf, UserError } from '../errors.js';
import { parseExactJson, positionOf } from './exact-json.js';
import { expectations, validate } from './generated/validate-config.js';
import type { Spec } from './types.js';

/** A validated config.json. */
export interface LoadedSpec {
  readonly spec: Spec;
  /** How whole numbers beyond 2^53 were written: ./exact-json.ts. */
  readonly digits: ReadonlyMap<number, string>;
  readonly text: string;
}

/** No real config.json comes near: the largest known seccomp profiles take 100 KiB. */
const MAX_BYTES = 3 << 20;

/** Reads and validates a bundle's configuration, `config` inside its folder. Throws a UserError that names the file, and the place in it. */
export function loadSpec(bundle: string, config = 'config.json'): LoadedSpec {
  const path = resolve(bundle, config);
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new UserError(`${path}: ${reasonOf(error)}`);
  }
  if (bytes.length > MAX_BYTES) {
    throw new UserError(`${path}: ${bytes.length} bytes are too many, at most ${MAX_BYTES}`);
  }
  return parseSpec(bytes.toString('utf8'), path);
}

/** Validates the text of a config.json; `name` stands for it in messages. */
export function parseSpec(text: string, name = 'config.json'): LoadedSpec {
  let parsed: ReturnType<typeof parseExactJson>;
  try {
    parsed = parseExactJson(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch (error) {
    if (error instanceof RangeError) throw new UserError(`${name}: ${error.message}`);
    if (!(error instanceof SyntaxError)) throw error;
    const position = positionOf(error, text);
    const message = error.message.replace(/ in JSON at position \d+.*$/s, '').replace(/\s+/g, ' ');
    throw new UserError(`${name}: not JSON: ${position === undefined ? '' : `${position}: `}${message}`);
  }
  const { value, digits } = parsed;
  if (!isSpec(value)) throw new UserError(`${name}: ${firstProblem(value)}`);
  const problem = duplicate(value) ?? nulCharacter(value, '', text);
  if (problem !== undefined) throw new UserError(`${name}: ${problem}`);
  return { spec: value, digits, text };
}

function isSpec(value: unknown): value is Spec {
  return validate(value);
}

interface SchemaError {
  readonly instancePath: string;
  readonly keyword: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/** The first thing that ajv's code found, in words: `process.args: expected an array of strings, got a number`. */
function firstProblem(value: unknown): string {
  const errors: readonly SchemaError[] = (validate as { errors?: readonly SchemaError[] }).errors ?? [];
  const error = errors[0];
  if (error === undefined) return 'is not valid';
  const names = error.instancePath
    .split('/')
    .slice(1)
    .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
  if (error.keyword === 'required') names.push(String(error.params.missingProperty));
  const expected = expectations();
  let at: unknown = value;
  let shown = '';
  let general = '';
  for (const name of names) {
    const place = expected[joinPath(general, name)] === undefined ? '*' : name;
    general = joinPath(general, place);
    shown = Array.isArray(at) ? `${shown}[${name}]` : joinPath(shown, name);
    at = typeof at === 'object' && at !== null ? Reflect.get(at, name) : undefined;
  }
  const got = error.keyword === 'required' ? 'it is missing' : `got ${describe(at)}`;
  return `${shown === '' ? '' : `${shown}: `}expected ${expected[general] ?? 'another value'}, ${got}`;
}

function joinPath(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

/** "Duplicate namespaces or rlimits: an error" (runtime specification, config.md and config-linux.md). */
function duplicate(spec: Spec): string | undefined {
  for (const [place, entries] of [
    ['linux.namespaces', spec.linux?.namespaces],
    ['process.rlimits', spec.process.rlimits],
  ] as const) {
    const seen = new Set<string>();
    for (const [index, { type }] of (entries ?? []).entries()) {
      if (seen.has(type)) return `${place}[${index}].type: ${JSON.stringify(type)} appears a second time`;
      seen.add(type);
    }
  }
  return undefined;
}

/** A NUL would end the string early in the guest, where strings are C's: refused wherever it stands. */
function nulCharacter(value: unknown, path: string, text: string, depth = 0): string | undefined {
  if (depth === 0 && !text.includes('\\u0000')) return undefined;
  if (depth > 100) return `${path.slice(0, 60)}…: nested too deeply`;
  if (typeof value === 'string')
    return value.includes('\0') ? `${path}: contains a NUL character` : undefined;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [name, item] of Object.entries(value)) {
    const below = Array.isArray(value) ? `${path}[${name}]` : joinPath(path, name);
    const problem = name.includes('\0')
      ? `${path}: a name contains a NUL character`
      : nulCharacter(item, below, text, depth + 1);
    if (problem !== undefined) return problem;
  }
  return undefined;
}
