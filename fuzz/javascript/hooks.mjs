// Node's loader hooks: what is loaded from src/boot counts its branches.
import { instrument } from './instrument.mjs';

let port;
let next = 0;

export function initialize(data) {
  port = data.port;
}

export async function load(url, context, nextLoad) {
  const loaded = await nextLoad(url, context);
  if (!url.includes('/out/js/src/boot/') || loaded.format !== 'module') return loaded;
  const { source, count } = instrument(String(loaded.source), next);
  next += count;
  port.postMessage(next);
  return { ...loaded, source, shortCircuit: true };
}
