// Writes src/runtime/spec/generated/validate-config.ts from the JSON schemas beside it: the validator as plain code,
// so that neither ajv nor a schema is loaded when a container starts. `--check` only compares (status 1: not current).
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const { Ajv } = require('ajv');
const standaloneCode = require('ajv/dist/standalone').default;

const spec = join(dirname(fileURLToPath(import.meta.url)), '../src/runtime/spec');
const output = join(spec, 'generated/validate-config.ts');

/** What a schema wants, in words for an error message; undefined where it only combines others. */
function words(schema) {
  if (schema.description) return schema.description;
  if (schema.enum) return `one of ${schema.enum.map((value) => JSON.stringify(value)).join(', ')}`;
  switch (schema.type) {
    case 'integer': {
      const { minimum, maximum } = schema;
      if (minimum === undefined) return 'a whole number';
      return maximum === undefined
        ? `a whole number, at least ${minimum}`
        : `a whole number from ${minimum} to ${maximum}`;
    }
    case 'array':
      return schema.items?.type === 'string' ? 'an array of strings' : 'an array';
    case 'boolean':
      return 'true or false';
    case 'string':
      return 'a string';
    case 'object':
      return 'an object';
    default:
      return undefined;
  }
}

/** What is wanted at every place of the file, by its path with `*` for any index or name: `process.rlimits.*.type`. */
function collect(schema, base, path, resolve, into) {
  if (schema.$ref) {
    const [file, pointer] = schema.$ref.split('#');
    const id = file === '' ? base : file;
    return collect(resolve(id, pointer ?? ''), id, path, resolve, into);
  }
  const text = words(schema);
  if (text !== undefined) into[path] = text;
  const below = (name) => (path === '' ? name : `${path}.${name}`);
  for (const [name, value] of Object.entries(schema.properties ?? {})) {
    collect(value, base, below(name), resolve, into);
  }
  for (const every of [schema.items, schema.additionalProperties]) {
    if (every) collect(every, base, below('*'), resolve, into);
  }
}

export function generate() {
  const schemas = readdirSync(join(spec, 'schema'))
    .sort()
    .map((name) => JSON.parse(readFileSync(join(spec, 'schema', name), 'utf8')));
  const ajv = new Ajv({ code: { source: true, esm: true }, schemas, inlineRefs: false, messages: false });
  const code = standaloneCode(ajv, { validate: 'config.json' });
  if (/\brequire\(/.test(code)) throw new Error('the generated validator would load a part of ajv');
  const expected = {};
  const resolve = (id, pointer) => {
    const names = pointer.split('/').filter((name) => name !== '');
    return names.reduce(
      (schema, name) => schema[name],
      schemas.find((schema) => schema.$id === id),
    );
  };
  collect(resolve('config.json', ''), 'config.json', '', resolve, expected);
  return [
    '// @ts-nocheck',
    '// Generated from ../schema/*.json by scripts/generate-validators.mjs: do not edit.',
    code.replace(/^"use strict";/, ''),
    '/** What is wanted at each place of the file, in words. A function, so that only an error pays for it. */',
    'export function expectations(): Readonly<Record<string, string | undefined>> {',
    `  return ${JSON.stringify({ __proto: null, ...expected }, undefined, 1).replace('"__proto"', '__proto__')};`,
    '}',
    '',
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = generate();
  if (process.argv.includes('--check')) {
    if (readFileSync(output, 'utf8') !== text) {
      console.error(`${output} is not current: run node scripts/generate-validators.mjs`);
      process.exitCode = 1;
    }
  } else {
    writeFileSync(output, text);
  }
}
