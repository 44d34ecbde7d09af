import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../src/addon/index.js';
import { parseConfig } from '../../../src/runtime/config/file.js';
import { KEY_NAMES } from '../../../src/runtime/config/keys.js';
import { resolveSettings } from '../../../src/runtime/config/settings.js';
import { exampleFile, settingsTable } from '../../support/config-docs.js';

/** Set by who has changed the table of settings: writes what follows from it. */
const write = process.env.TSVMM_TEST_WRITE === '1';

const EXAMPLE = join(packageRoot(), 'etc/config.toml.example');
const DOCS = join(packageRoot(), 'docs/configuration.md');
const TABLE = /(<!-- settings: begin -->\n)[\s\S]*(<!-- settings: end -->)/;

t.test('the example has every setting, with its default', async (t) => {
  if (write) writeFileSync(EXAMPLE, exampleFile());
  const example = readFileSync(EXAMPLE, 'utf8');
  t.equal(example, exampleFile(), 'TSVMM_TEST_WRITE=1 writes it anew');
  const uncommented = example.replace(/^#(?=\w+ = )/gm, '');
  const settings = parseConfig(uncommented, 'example');
  t.same(Object.keys(settings), KEY_NAMES);
  const resolve = (file: typeof settings) =>
    resolveSettings({ spec: {}, env: {}, file: { path: 'example', settings: file } });
  const { kernel: _kernel, initrd: _initrd, ...defaults } = settings;
  const { defaultMemory, defaultVcpus, ...others } = resolve(defaults);
  const { defaultMemory: memory, defaultVcpus: vcpus, ...none } = resolve({});
  t.same(others, none, 'the defaults are those of the code');
  t.same([defaultMemory.value, defaultVcpus.value], [memory.value, vcpus.value]);
});

t.test('the documentation has them, too', async (t) => {
  const text = readFileSync(DOCS, 'utf8');
  const wanted = text.replace(TABLE, (_, begin: string, end: string) => begin + settingsTable() + end);
  if (write) writeFileSync(DOCS, wanted);
  t.match(text, TABLE);
  t.equal(readFileSync(DOCS, 'utf8'), wanted, 'TSVMM_TEST_WRITE=1 writes it anew');
});
