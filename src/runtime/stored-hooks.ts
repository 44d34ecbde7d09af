import type { Hook, HookName } from './spec/types.js';
import type { ContainerStore } from './state/store.js';

/** The hooks of that name that a container was made with. @throws UserError where its configuration cannot be read */
export async function storedHooks(
  store: ContainerStore,
  id: string,
  name: HookName,
): Promise<readonly Hook[]> {
  const config = store.config(id);
  // Parsing all of it for what hardly any has would cost more than the command itself.
  if (!config.includes(`"${name}"`)) return [];
  const { parseSpec } = await import('./spec/load.js');
  return parseSpec(config).spec.hooks?.[name] ?? [];
}
