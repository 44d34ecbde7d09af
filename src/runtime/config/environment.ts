import { resolve } from 'node:path';
import { UserError } from '../errors.js';
import { suggestion } from '../values.js';
import { KEY_NAMES, KEYS, type KeyName, type Layer } from './keys.js';
import { readValue } from './read-value.js';

/** Variables of tsvmm that are no settings of a machine: the file of settings, stacks with errors, and those of its tests. */
const OTHERS: readonly string[] = ['CONFIG', 'DEBUG', 'ADDON', 'TESTBED', 'AGENT_TESTS'];

/** What begins a variable that only tests heed. */
const TESTS = 'TEST_';

const PREFIX = 'TSVMM_';

/**
 * The settings that TSVMM_* make; an empty variable is none. Paths may be relative to the current folder.
 * @throws UserError for one that there is not, a value that is none
 */
export function readEnvironment(env: NodeJS.ProcessEnv): Layer {
  const layer: Layer = {};
  for (const variable of Object.keys(env)) {
    if (!variable.startsWith(PREFIX)) continue;
    const text = env[variable];
    if (text === undefined || text === '') continue;
    const rest = variable.slice(PREFIX.length);
    const name = rest === rest.toUpperCase() ? keyOf(rest.toLowerCase()) : undefined;
    if (name !== undefined) {
      readValue(layer, name, KEYS[name].type === 'path' ? resolve(text) : text, variable);
    } else if (!OTHERS.includes(rest) && !rest.startsWith(TESTS)) {
      const names = KEY_NAMES.filter((key) => KEYS[key].variable).map((key) => key.toUpperCase());
      const near = suggestion(rest, [...names, ...OTHERS], PREFIX);
      throw new UserError(`${variable}: there is no such variable${near}`);
    }
  }
  return layer;
}

function keyOf(name: string): KeyName | undefined {
  return KEY_NAMES.find((key) => key === name && KEYS[key].variable);
}
