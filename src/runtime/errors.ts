import { getSystemErrorMap } from 'node:util';

/** An error whose message is meant for the person at the command line: no stack is shown for it. */
export class UserError extends Error {
  override readonly name = 'UserError';
}

/** The text of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The errno name (`ENOENT`) of an error of node:fs, or undefined. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EEXIST: 'it exists already',
  EISDIR: 'it is a folder',
  ELOOP: 'too many symbolic links',
  ENAMETOOLONG: 'the name is too long',
  ENOENT: 'no such file or folder',
  ENOSPC: 'the disk is full',
  ENOTDIR: 'a part of the path is not a folder',
  EPERM: 'not permitted',
  EROFS: 'the file system is read-only',
};

/** Why a call of node:fs failed, in words and without the path. */
export function reasonOf(error: unknown): string {
  const code = codeOf(error);
  return (code !== undefined && REASONS[code]) || messageOf(error);
}

/** Why a system call failed that returned -errno, in the system's words. */
export function reasonOfErrno(result: number): string {
  const [name, words] = getSystemErrorMap().get(result) ?? [];
  return (name !== undefined && REASONS[name]) || words || `error ${-result}`;
}

/** A value in few words, whatever it is. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string') {
    return value === ''
      ? 'an empty string'
      : JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  }
  if (typeof value === 'number')
    return Number.isInteger(value) ? `the number ${value}` : `the fraction ${value}`;
  return String(value);
}
