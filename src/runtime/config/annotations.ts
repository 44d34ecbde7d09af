import { UserError } from '../errors.js';
import { suggestion } from '../values.js';
import { isKey, KEY_NAMES, KEYS, type KeyName, type Layer } from './keys.js';
import { readValue } from './read-value.js';

/** tsvmm's own: `io.tsvmm.memory`. */
export const ANNOTATION_PREFIX = 'io.tsvmm.';

export const KATA_PREFIX = 'io.katacontainers.config.hypervisor.';

/** The annotations of Kata Containers that mean a setting of tsvmm. Its memory is in MiB. */
const KATA: Readonly<Record<string, KeyName>> = {
  default_vcpus: 'vcpus',
  default_memory: 'memory',
  kernel: 'kernel',
  initrd: 'initrd',
  kernel_params: 'kernel_parameters',
};

export interface AnnotationSettings {
  readonly own: Layer;
  readonly kata: Layer;
  readonly warnings: readonly string[];
}

/**
 * The settings that a bundle makes by annotations.
 * @param enabled which settings it may make, `*` for all
 * @throws UserError for one of io.tsvmm.* that there is not, one that is not enabled, a value that is none
 */
export function readAnnotations(
  annotations: Readonly<Record<string, string>>,
  enabled: readonly string[],
  configPath: string,
): AnnotationSettings {
  const own: Layer = {};
  const kata: Layer = {};
  const warnings: string[] = [];
  for (const [annotation, text] of Object.entries(annotations)) {
    const place = `config.json: annotations: ${annotation}`;
    if (annotation.startsWith(ANNOTATION_PREFIX)) {
      const name = annotation.slice(ANNOTATION_PREFIX.length);
      if (!isKey(name) || !KEYS[name].annotation) {
        const names = KEY_NAMES.filter((key) => KEYS[key].annotation);
        const why = isKey(name) ? 'is a setting of the host, not of a bundle' : 'there is no such setting';
        throw new UserError(
          `${place}: ${why}${isKey(name) ? '' : suggestion(name, names, ANNOTATION_PREFIX)}`,
        );
      }
      checkEnabled(name, enabled, place, configPath);
      readValue(own, name, text, place);
    } else if (annotation.startsWith(KATA_PREFIX)) {
      const kataName = annotation.slice(KATA_PREFIX.length);
      const name = Object.hasOwn(KATA, kataName) ? KATA[kataName] : undefined;
      if (name === undefined) {
        const near = suggestion(kataName, Object.keys(KATA), KATA_PREFIX);
        warnings.push(`annotations: ${annotation} has no effect${near}`);
        continue;
      }
      checkEnabled(name, enabled, place, configPath);
      // 0 is Kata's word for its own default.
      if ((name === 'memory' || name === 'vcpus') && text.trim() === '0') continue;
      readValue(kata, name, name === 'memory' ? `${text.trim()}M` : text, place);
    }
  }
  return { own, kata, warnings };
}

function checkEnabled(name: KeyName, enabled: readonly string[], place: string, configPath: string): void {
  if (enabled.includes('*') || enabled.includes(name)) return;
  throw new UserError(`${place}: not allowed by enable_annotations of ${configPath}`);
}
