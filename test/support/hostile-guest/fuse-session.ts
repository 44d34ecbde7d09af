/** A FUSE session of the hostile guest, through the virtio-fs device. */
import { strict as assert } from 'node:assert';
import { type Case, served } from './cases.js';
import type { Driver } from './driver.js';
import { type FuseHeader, fuse, fuseInit, fuseRequest, longs, words } from './fuse.js';

export const HIGH_PRIORITY = 0;
export const REQUESTS = 1;
export const ROOT = 1;
/** Bytes of fuse_out_header. */
export const OUT_HEADER = 16;

export interface Reply {
  /** 0 or -errno. */
  readonly error: number;
  /** Bytes that came back, the header among them. */
  readonly length: number;
  readonly body: Buffer;
}

let unique = 1n;

/** Sends a request with `room` bytes for what comes behind the reply's header. */
export async function call(
  driver: Driver,
  opcode: number,
  node: number | bigint,
  body: Uint8Array = new Uint8Array(),
  { room = 256, ...more }: FuseHeader & { readonly room?: number } = {},
): Promise<Reply> {
  unique++;
  const request = fuseRequest(opcode, node, body, { unique, ...more });
  const { length, bytes } = await driver.request(
    REQUESTS,
    [request],
    room > 0 ? [OUT_HEADER, room] : [OUT_HEADER],
  );
  assert.ok(length <= OUT_HEADER + room, `used length ${length}`);
  if (length > 0) {
    assert.equal(bytes.readUInt32LE(0), length, 'the reply’s length is the used length');
    assert.equal(bytes.readBigUInt64LE(8), more.unique ?? unique, 'it answers this request');
    assert.ok(
      bytes.subarray(length).every((byte) => byte === 0xee),
      'nothing behind the reply was written',
    );
  }
  return { error: length > 0 ? bytes.readInt32LE(4) : 0, length, body: bytes.subarray(OUT_HEADER, length) };
}

export async function expects(error: number, reply: Promise<Reply>, what = ''): Promise<Buffer> {
  const { error: seen, body } = await reply;
  assert.equal(seen, error, what);
  return body;
}

export async function init(driver: Driver): Promise<void> {
  const { length, bytes } = await driver.request(REQUESTS, [fuseInit()], [OUT_HEADER, 64]);
  assert.equal(bytes.readInt32LE(4), 0);
  assert.equal(length, 80);
}

/** A name as a request has it. */
export const name = (text: string): Buffer => Buffer.from(`${text}\0`);

export async function lookup(driver: Driver, text: string, parent: number | bigint = ROOT): Promise<bigint> {
  return (await expects(0, call(driver, fuse.LOOKUP, parent, name(text)), text)).readBigUInt64LE(0);
}

export async function open(driver: Driver, node: bigint, flags = 2): Promise<bigint> {
  return (await expects(0, call(driver, fuse.OPEN, node, words(flags, 0)))).readBigUInt64LE(0);
}

/** A case in a session. */
export const inSession = (title: string, run: (driver: Driver) => Promise<unknown>): Case => ({
  name: title,
  verdict: served,
  async attack(driver) {
    await init(driver);
    await run(driver);
  },
});

/** The body of SETATTR. */
export const ATTRIBUTES = (valid: number): Buffer => Buffer.concat([words(valid, 0), Buffer.alloc(80)]);

/** The bodies of READ and WRITE. */
export const READ = (handle: bigint, offset: number | bigint, size: number): Buffer =>
  Buffer.concat([longs(handle, offset), words(size, 0), longs(0), words(0, 0)]);
export const WRITES = (handle: bigint, offset: number | bigint, size: number, data: Uint8Array): Buffer =>
  Buffer.concat([longs(handle, offset), words(size, 0), longs(0), words(0, 0), data]);
