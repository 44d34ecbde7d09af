import { openSync } from 'node:fs';
import { reasonOf, UserError } from './errors.js';
import { printError, writeAll } from './output.js';

/**
 * What tsvmm itself has to say. Errors go to standard error, as one line for people, and to the file of `--log`, in which callers
 * look for the reason. Warnings go to that file alone where there is one: the standard error of `create` and `run` is the container's.
 */
export type LogLevel = 'error' | 'warning' | 'debug';

export interface LogOptions {
  /** Appended to, and made where it is not there. */
  readonly file?: string | undefined;
  readonly format: 'text' | 'json';
  readonly debug: boolean;
}

let file: number | undefined;
let format: LogOptions['format'] = 'text';
let debugging = false;
let toPeople: ((line: string) => void) | undefined = printError;

/** What `--log`, `--log-format` and `--debug` say. The file is opened at once, so that it stays reachable whatever becomes of this process's root. @throws UserError */
export function configureLog(options: LogOptions): void {
  format = options.format;
  debugging = options.debug;
  if (options.file === undefined) return;
  try {
    file = openSync(options.file, 'a', 0o644);
  } catch (error) {
    throw new UserError(`--log: ${options.file}: ${reasonOf(error)}`);
  }
}

/** Where lines for people go instead of standard error; undefined: nowhere. For a sandbox, whose standard error is the container's. */
export function redirectLog(write: ((line: string) => void) | undefined): void {
  toPeople = write;
}

/** A failure of the command: one line. */
export function logError(message: string): void {
  log('error', message);
}

/** What a person should know, but stops nothing. */
export function logWarning(message: string): void {
  log('warning', message);
}

/** For `--debug`. */
export function logDebug(message: string): void {
  if (debugging) log('debug', message);
}

export function isDebugging(): boolean {
  return debugging;
}

function log(level: LogLevel, text: string): void {
  const message = text.replaceAll('\n', ' ');
  if (file !== undefined) writeAll(file, `${entry(level, message)}\n`);
  if (toPeople === undefined || (file !== undefined && level !== 'error')) return;
  if (level === 'debug' || (format === 'json' && file === undefined)) toPeople(entry(level, message));
  else toPeople(`tsvmm: ${level === 'warning' ? 'warning: ' : ''}${message}`);
}

/** A line as logrus writes it, which callers parse. */
function entry(level: LogLevel, msg: string): string {
  const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  return format === 'json'
    ? JSON.stringify({ level, msg, time })
    : `time="${time}" level=${level} msg=${JSON.stringify(msg)}`;
}
