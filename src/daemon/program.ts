/** What `overlayd` was told to do, by its flags. */
import { Command } from 'commander';
import type { Flags } from './config.js';
import type { Signals } from './signals.js';

/** Gathers an option that is given several times. */
function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

export { leave } from '../sys/leave.js';
export { LogStream } from './log-stream.js';

const program = new Command('overlayd')
  .description('userland overlay networks: runs overlay devices and serves overlayadm')
  .option('--workers <n>', 'data-plane threads (default: one a CPU)')
  .option(
    '--threads <how>',
    'combined, or split: each worker is two threads, one a direction (default: combined)',
  )
  .option('--memory <size>', 'memory reserved for tables and buffers (default: 256M)')
  .option('--pin <cpus>', 'CPUs to bind the workers to, such as 0,2-3 (default: any)')
  .option('--bank <n>', 'send sockets on each underlay address (default: 8, or 8 a worker above 2)')
  .option('--batch <n>', 'frames or messages a worker takes at a time (default: 64)')
  .option('--ring <n>', 'frames that a link keeps for each worker (default: 1000)')
  .option(
    '--busy-poll <us>',
    'microseconds for which a worker looks for more work before it sleeps (default: 50)',
  )
  .option('--socket <path>', 'control socket (default: /run/overlayd/overlayd.sock)')
  .option('--state-dir <dir>', 'directory this daemon locks as its own (default: /var/lib/overlayd)')
  .option('--log-level <level>', 'debug, info, warn or error (default: info)')
  .option(
    '--plugin <module>',
    'lookup plugin to load: a path or a package; may be given several times',
    collect,
  )
  .option('--socket-mode <mode>', 'permissions of the control socket (default: 0666)')
  .option('--group <group>', 'group that owns the control socket and whose members may read values')
  .option('--admin-group <group>', 'group whose members may change things, as root may')
  .option(
    '--config <file>',
    'YAML file with the same settings and overlays; flags win; SIGHUP reads it again',
  )
  .option('--test', 'check the configuration, say every fault, and start nothing')
  .allowExcessArguments(false)
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

/** Does it: checks the configuration, or serves, which goes on until a signal. Throws OverlayError for what is wrong. */
export async function run(signals: Signals): Promise<void> {
  const { config: file, test, ...flags } = program.parse().opts<Flags & { config?: string; test?: true }>();
  if (test) return testConfig(flags, file);
  const { serve } = await import('./serve.js');
  await serve(flags, file, signals);
}

async function testConfig(flags: Flags, file: string | undefined): Promise<void> {
  const { checkConfig } = await import('./config.js');
  const checked = checkConfig(flags, file);
  if ('config' in checked) {
    console.log(`${file ?? 'flags'}: ok`);
    return;
  }
  for (const { text } of checked.faults) console.error(text);
  process.exitCode = 8;
}
