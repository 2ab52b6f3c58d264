/** `npm run bench [-- name ...]`: all benches, or those named; `--smoke` runs each for a moment. */
import { parseArgs } from 'node:util';
import { main as core } from './core.js';
import { main as lookup } from './lookup.js';
import { main as miss } from './miss.js';
import { main as throughput } from './throughput.js';

const benches = { core, lookup, miss, throughput };

const { values, positionals } = parseArgs({
  options: { smoke: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const unknown = positionals.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`bench: no ${unknown.join(', ')}; there are: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}
for (const [name, bench] of Object.entries(benches)) {
  if (positionals.length === 0 || positionals.includes(name)) await bench({ smoke: values.smoke });
}
process.exit(0);
