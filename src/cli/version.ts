import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../addon/index.js';

/** The version in package.json. */
export function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8'));
  const version: unknown = manifest instanceof Object ? Reflect.get(manifest, 'version') : undefined;
  return typeof version === 'string' ? version : 'unknown';
}
