import { KEY_NAMES, KEYS, type Key } from '../../src/runtime/config/keys.js';

/** Breaks text into lines of at most `width` characters. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 1 > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** What a value may be, in words. */
function range({ type, min, max, choices }: Key): string {
  switch (type) {
    case 'path':
      return 'an absolute path';
    case 'word':
      return 'a name or a path';
    case 'words':
      return 'an array of strings, or words in one';
    case 'size':
      return `a size: bytes, or with K, M, G; at least ${(min ?? 0) >> 20}M`;
    case 'integer':
      return `${min} to ${max}`;
    case 'seconds':
      return 'seconds, above 0';
    case 'boolean':
      return 'true or false';
    case 'choice':
      return (choices ?? []).map((choice) => JSON.stringify(choice)).join(', ');
  }
}

/** etc/config.toml.example: every setting, commented out, with its default. */
export function exampleFile(): string {
  const settings = KEY_NAMES.map((name) => {
    const key: Key = KEYS[name];
    const about = [...wrap(key.doc, 110), `Value: ${range(key)}. Default: ${key.default ?? key.absent}.`];
    const value = key.default ?? '"/usr/share/tsvmm/..."';
    return `${about.map((line) => `# ${line}\n`).join('')}#${name} = ${value}\n`;
  });
  return `# Settings of tsvmm: /etc/tsvmm/config.toml, or the file that TSVMM_CONFIG names. All that is here is the default.
# A bundle and the command line are stronger than this file; docs/configuration.md has the whole order.

${settings.join('\n')}`;
}

/** The table of docs/configuration.md. */
export function settingsTable(): string {
  const rows = KEY_NAMES.map((name) => {
    const key: Key = KEYS[name];
    const also = [
      key.option === undefined ? undefined : `\`${key.option}\``,
      key.variable ? undefined : 'the file only',
      key.variable && !key.annotation ? 'no annotation' : undefined,
    ].filter((item) => item !== undefined);
    return `| \`${name}\` | ${range(key)} | ${key.default === undefined ? key.absent : `\`${key.default}\``} | ${also.join(', ')} | ${key.doc} |\n`;
  });
  return `| setting | value | default | option; limits | |\n| --- | --- | --- | --- | --- |\n${rows.join('')}`;
}
