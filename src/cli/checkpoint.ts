import { UserError } from '../runtime/errors.js';

export const usage = `usage: tsvmm checkpoint|restore ID

To come: neither works in this version.`;

/** Both commands: what they are asked for can only be refused, whatever the options. */
export async function main(): Promise<number> {
  throw new UserError('checkpoint and restore are to come: this version of tsvmm cannot save a container');
}
