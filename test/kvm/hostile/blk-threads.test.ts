/** The same requests, for a disk that threads serve. */
import { blkCases } from '../../support/hostile-guest/blk-cases.js';
import { attack } from '../../support/hostile-guest/cases.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const bench = await fullBench({ blk: { engine: 'threads' } });
const { blk, readOnly } = blkCases(bench);
attack(bench, 'blk', blk);
attack(bench, 'read-only', readOnly);
bench.end();
