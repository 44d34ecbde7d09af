/** Requests that break the rules of the block device (virtio 1.2, 5.2.6). */
import { blkCases } from '../../support/hostile-guest/blk-cases.js';
import { attack } from '../../support/hostile-guest/cases.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const bench = await fullBench();
const { blk, readOnly } = blkCases(bench);
attack(bench, 'blk', blk);
attack(bench, 'read-only', readOnly);
bench.end();
