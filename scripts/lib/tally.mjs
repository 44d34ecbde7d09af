// Counts and shows the results of tests. A test is a top-level test point of a TAP file, a doctest case or a
// lint step.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { inspect } from 'node:util';
import { root } from './host.mjs';

export class Tally {
  passed = 0;
  failed = 0;
  skipped = 0;
  #failures = [];

  /** One line for a unit of work, and the details of what failed in it. */
  add(name, { passed = 0, failed = 0, skipped = 0, ms, details = [] }) {
    this.passed += passed;
    this.failed += failed;
    this.skipped += skipped;
    const counts = [
      `${passed} passed`,
      failed > 0 ? `${failed} FAILED` : '',
      skipped > 0 ? `${skipped} skipped` : '',
    ];
    const text = counts.filter((part) => part !== '').join(', ');
    console.log(`${failed > 0 ? 'not ok' : 'ok'}  ${name}  ${text}  ${(ms / 1000).toFixed(1)} s`);
    for (const line of details) console.log(`    ${line.replaceAll('\n', '\n    ')}`);
    if (failed > 0) this.#failures.push(name);
  }

  /** Prints the closing line; the exit status: 0 if something passed and nothing failed. */
  close() {
    if (this.#failures.length > 0) console.log(`\nfailed: ${this.#failures.join(', ')}`);
    const skipped = this.skipped > 0 ? `, ${this.skipped} skipped` : '';
    console.log(`\n${this.passed} passed, ${this.failed} failed${skipped}`);
    return this.failed === 0 && this.passed > 0 ? 0 : 1;
  }
}

/** Takes the events of runFiles and adds each file's TAP to the tally when it ends. */
export async function tapReporter(tally) {
  const { Parser } = await import('tap-parser'); // there once `npm ci` has run
  const files = new Map();
  return {
    report(event) {
      if (event.start) files.set(event.file, new TapFile(event.file, new Parser()));
      const file = files.get(event.file);
      if (event.out !== undefined) file.out(event.out);
      if (event.err !== undefined) file.err(event.err);
      if (event.end === undefined) return;
      files.delete(event.file);
      tally.add(file.name, file.result(event));
    },
    /** Files that started and never ended: the machine that ran them has gone. */
    lost: (why) => {
      for (const file of files.values()) tally.add(file.name, file.result({ end: why, late: false, ms: 0 }));
    },
  };
}

class TapFile {
  #text = '';
  #errors = '';
  #passed = 0;
  #failed = 0;
  #skipped = 0;
  #details = [];

  constructor(path, parser) {
    this.name = relative(join(root, 'out/js'), path).replace(/\.test\.js$/, '');
    this.parser = parser;
    parser.on('assert', (result) => {
      if (result.skip || result.todo) this.#skipped++;
      else if (result.ok) this.#passed++;
      else this.#failed++;
    });
    parser.on('bailout', (why) => this.#details.push(`Bail out! ${why}`));
    this.#watch(parser, []);
  }

  /** Collects the failures at the leaves, however deep. */
  #watch(parser, path) {
    parser.on('assert', (result) => {
      if (result.ok || result.skip || result.todo) return;
      if (result.closingTestPoint && !result.diag?.error) return;
      this.#details.push(`not ok: ${[...path, result.name].join(' > ')}`, ...explain(result.diag));
    });
    parser.on('child', (child) => this.#watch(child, [...path, child.name]));
  }

  out(text) {
    this.#text += text;
    this.parser.write(text);
  }

  err(text) {
    this.#errors += text;
  }

  result({ end, late, ms }) {
    this.parser.end();
    const log = join(root, 'out/logs', `${this.name}.tap`);
    mkdirSync(dirname(log), { recursive: true });
    writeFileSync(
      log,
      this.#errors === '' ? this.#text : `${this.#text}\n# Standard error:\n${this.#errors}`,
    );
    const count = this.#passed + this.#failed + this.#skipped;
    let trouble;
    if (late) trouble = `did not end in time (${Math.round(ms / 1000)} s)`;
    else if (end !== 0 && this.#failed === 0)
      trouble = `ended with ${typeof end === 'number' ? `exit status ${end}` : end}`;
    else if (count === 0) trouble = 'has no tests';
    else if (!this.parser.results?.ok && this.#failed === 0) trouble = 'printed broken TAP';
    if (trouble !== undefined) {
      this.#failed++;
      this.#details.push(`the file ${trouble}`);
    }
    if (this.#failed > 0) {
      const errors = this.#errors.trimEnd();
      if (errors !== '') this.#details.push('standard error:', ...errors.split('\n').slice(-20));
      this.#details.push(`the whole output: ${relative(process.cwd(), log)}`);
    }
    return { passed: this.#passed, failed: this.#failed, skipped: this.#skipped, ms, details: this.#details };
  }
}

function explain(diag) {
  if (!diag) return [];
  const { at, stack: _stack, source, diff, ...rest } = diag;
  const place = at?.fileName ? [`  at ${at.fileName}:${at.lineNumber}:${at.columnNumber}`] : [];
  const blocks = [source, diff].filter((block) => typeof block === 'string').map((block) => block.trimEnd());
  const others = Object.keys(rest).length > 0 ? [inspect(rest, { depth: 6, breakLength: 100 })] : [];
  return [...place, ...blocks, ...others].map((text) => `  ${text.trim().replaceAll('\n', '\n  ')}`);
}
