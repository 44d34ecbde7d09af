import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { codeOf, messageOf, reasonOf, UserError } from '../errors.js';
import { suggestion } from '../values.js';
import { isKey, KEY_NAMES, type Layer } from './keys.js';
import { readValue } from './read-value.js';

/** Where the administrator's settings are, unless TSVMM_CONFIG names another file. */
export const CONFIG_FILE = '/etc/tsvmm/config.toml';

const MAX_BYTES = 1 << 20;

/** The settings of a file, and its path for messages. */
export interface ConfigFile {
  readonly path: string;
  readonly settings: Layer;
}

/**
 * Reads the configuration file. None is fine, unless TSVMM_CONFIG names it.
 * @throws UserError that names the file and the line
 */
export function loadConfigFile(env: NodeJS.ProcessEnv = process.env): ConfigFile {
  const named = env.TSVMM_CONFIG === '' ? undefined : env.TSVMM_CONFIG;
  const path = named ?? CONFIG_FILE;
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = codeOf(error);
    if (named === undefined && (code === 'ENOENT' || code === 'ENOTDIR')) return { path, settings: {} };
    throw new UserError(`${path}: ${reasonOf(error)}`);
  }
  return { path, settings: parseConfig(text, path) };
}

/** The settings in the text of a config.toml; `path` stands for it in messages. */
export function parseConfig(text: string, path: string): Layer {
  if (text.length > MAX_BYTES) throw new UserError(`${path}: ${text.length} characters are too many`);
  const table = parseToml(text, path);
  const settings: Layer = {};
  for (const [name, value] of Object.entries(table)) {
    const place = `${path}:${lineOf(text, name)}: ${name}`;
    if (!isKey(name)) throw new UserError(`${place}: there is no such setting${suggestion(name, KEY_NAMES)}`);
    readValue(settings, name, value, place);
  }
  for (const name of settings.enable_annotations ?? []) {
    if (name !== '*' && !isKey(name)) {
      const place = `${path}:${lineOf(text, 'enable_annotations')}: enable_annotations`;
      throw new UserError(`${place}: there is no setting ${name}${suggestion(name, KEY_NAMES)}`);
    }
  }
  return settings;
}

function parseToml(text: string, path: string): Readonly<Record<string, unknown>> {
  // Loaded here only: most hosts have no such file, and each start would pay for the parser.
  const { parse, TomlError } = createRequire(import.meta.url)('smol-toml') as typeof import('smol-toml');
  try {
    return parse(text);
  } catch (error) {
    const reason = messageOf(error)
      .split('\n')[0]
      ?.replace(/^Invalid TOML document: /, '');
    const line = error instanceof TomlError ? `:${error.line}` : '';
    throw new UserError(`${path}${line}: not TOML: ${reason}`);
  }
}

/** The line on which a top-level key or table stands; the parser doesn't tell. */
function lineOf(text: string, name: string): number {
  const lines = text.split('\n');
  const quoted = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const pattern = new RegExp(`^\\s*(?:\\[+\\s*)?["']?${quoted}["']?\\s*[.=\\]]`);
  return lines.findIndex((line) => pattern.test(line)) + 1 || 1;
}
