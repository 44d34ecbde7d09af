/** The same requests, for a disk past the page cache, where they take their time. */
import { closeSync, constants, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../../src/addon/index.js';
import { blkCases } from '../../support/hostile-guest/blk-cases.js';
import { attack } from '../../support/hostile-guest/cases.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

/** Whether files there can be opened with O_DIRECT: on some kernels not on a tmpfs. */
function hasDirect(folder: string): boolean {
  const probe = join(folder, `direct-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(probe, '');
  try {
    closeSync(openSync(probe, constants.O_RDWR | constants.O_DIRECT));
    return true;
  } catch {
    return false;
  } finally {
    rmSync(probe);
  }
}

const folder = [tmpdir(), join(packageRoot(), 'out'), '/var/tmp'].find(hasDirect);
// Without any such folder, by threads that write through: the requests wait as well.
const bench = await fullBench(
  folder === undefined ? { blk: { engine: 'threads' } } : { folder, blk: { direct: true } },
);
const { blk, readOnly } = blkCases(bench);
attack(bench, 'blk', blk);
attack(bench, 'read-only', readOnly);
bench.end();
