/**
 * Runs one test file and reports uvu's counts to the parent. uvu is driven by hand because its own summary
 * swallows a failing before or after hook (its runner then rejects: here that is a failure).
 */
import { pathToFileURL } from 'node:url';
import { skipped } from './needs.js';

type Suite = () => Promise<[errors: string | true, passed: number, skipped: number, total: number]>;
const uvu = globalThis as unknown as { UVU_DEFER: number; UVU_INDEX: number; UVU_QUEUE: (Suite | null)[][] };

uvu.UVU_DEFER = 1;
uvu.UVU_INDEX = 0;
uvu.UVU_QUEUE = [[null]];
await import(pathToFileURL(process.argv[2] ?? '').href);

let passed = 0;
let failed = 0;
for (const suite of uvu.UVU_QUEUE.flat()) {
  if (suite === null) continue;
  try {
    const [errors, ran, , total] = await suite();
    passed += ran;
    failed += total - ran;
    if (typeof errors === 'string') process.stdout.write(`\n${errors}\n`);
  } catch (error) {
    failed++;
    console.log(`\n  a before or after hook failed:`, error);
  }
}
if (passed + failed + skipped.length === 0) {
  failed = 1;
  console.log('  the file holds no test');
}
process.send?.({ passed, failed, skipped }, () => process.exit(0));
