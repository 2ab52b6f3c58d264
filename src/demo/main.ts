#!/usr/bin/env node
/**
 * `npm run demo`: two hosts with an overlay between them, traffic through it, and what came of it.
 *
 * Exit codes: 0 all traffic arrived; 1 it did not, or the demo failed; 2 usage; 128 + n ended by signal n.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { Cleanup } from './cleanup.js';
import { Ending } from './ending.js';
import { startMemoryPair } from './memory-pair.js';
import { startNamespacePair } from './namespace-pair.js';
import { runNested } from './nest.js';
import type { Pair } from './pair.js';
import { problemOf } from './problem.js';
import { findWay, printMissing, type Way } from './requirements.js';
import { run } from './run.js';
import { print, title } from './screen.js';

const MEGABYTES_MAX = 1_000_000;

interface Options {
  readonly megabytes?: number;
  readonly inMemory?: boolean;
  readonly stay?: boolean;
  readonly nested?: boolean;
  readonly probe?: boolean;
}

const options = new Command('demo')
  .description('two hosts with an overlay between them: pings, a transfer, links, properties and counters')
  .option('--megabytes <n>', 'how much to transfer (default: 300, in memory 50)', parseMegabytes)
  .option('--in-memory', 'ports in memory and UDP on the loopback, without namespaces and links')
  .option('--stay', 'keep it up afterwards, and print commands to try')
  // How the demo starts itself: in a user namespace, and to find out what works in one.
  .addOption(new Option('--nested').hideHelp())
  .addOption(new Option('--probe').hideHelp())
  .allowExcessArguments(false)
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<Options>();

if (options.probe) printMissing();
else await start(options);

async function start({ inMemory = false, nested = false, megabytes, stay = false }: Options): Promise<void> {
  const way = chooseWay(inMemory, nested);
  if (way.kind === 'nested') {
    print('Not root: starting again in a user namespace (unshare -Urn).');
    process.exit(await runNested(process.argv.slice(2)));
  }
  if (way.kind === 'memory' && way.missing.length > 0) {
    print(
      'The demo with namespaces and TAP links cannot run here:',
      ...way.missing.map((line) => `  - ${line}`),
    );
    print('Instead: the same engine over ports in memory and UDP on the loopback.');
  }
  const cleanup = new Cleanup();
  const ending = new Ending(cleanup, nested);
  try {
    const isPlain = way.kind === 'plain';
    const pair = isPlain ? await startNamespacePair(cleanup, nested) : await startMemoryPair(cleanup);
    const code = (await run(pair, cleanup, (megabytes ?? pair.megabytesDefault) * 1e6)) ? 0 : 1;
    if (stay) {
      ending.codeWhenSignalled = code;
      await keepUp(pair);
    }
    await ending.finish(code);
  } catch (error) {
    // Once the end has begun, what fails fails because of it.
    if (!cleanup.hasBegun) print(`demo: ${problemOf(error)}`);
    await ending.finish(1);
  }
}

function chooseWay(inMemory: boolean, nested: boolean): Way {
  if (inMemory) return { kind: 'memory', missing: [] };
  return nested ? { kind: 'plain' } : findWay();
}

/** Prints what to try, and waits for a signal or for a host to fail. */
async function keepUp(pair: Pair): Promise<void> {
  title('It stays up; Ctrl-C takes it down');
  for (const [what, command] of pair.commands()) print(`  ${what}:`, `    ${command}`);
  const awake = setInterval(() => {}, 60_000); // the hosts alone need not keep the process alive
  try {
    await pair.lost;
  } finally {
    clearInterval(awake);
  }
}

function parseMegabytes(text: string): number {
  const value = Number(text);
  if (/^\d{1,7}$/.test(text) && value >= 1 && value <= MEGABYTES_MAX) return value;
  throw new InvalidArgumentError(`It is a whole number of 1 to ${MEGABYTES_MAX}.`);
}
