/**
 * `npm run bench [-- name ...]`: all benches, or those named; `--smoke` runs each for a moment. The other flags are
 * those of end-to-end.
 */
import { parseArgs } from 'node:util';
import { OverlayError } from '../src/errors.js';
import { main as core } from './core.js';
import { main as encapsulation } from './encapsulation.js';
import { main as endToEnd } from './end-to-end.js';
import { main as lookup } from './lookup.js';
import { main as miss } from './miss.js';
import { main as offload } from './offload.js';
import { flags } from './options.js';
import { main as ring } from './ring.js';

const benches = { core, encapsulation, offload, lookup, ring, miss, 'end-to-end': endToEnd };

const { values, positionals } = parseArgs({
  options: { ...flags, smoke: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const unknown = positionals.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`bench: no ${unknown.join(', ')}; there are: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}
try {
  for (const [name, bench] of Object.entries(benches)) {
    if (positionals.length === 0 || positionals.includes(name)) await bench(values);
  }
} catch (error) {
  if (!(error instanceof OverlayError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exit(2);
}
process.exit(0);
