#!/usr/bin/env node
/** `overlayd`: the daemon. Runs in the foreground, in the network namespace it is started in; logs to stderr. */
import { Command } from 'commander';
import { pino } from 'pino';
import { ControlServer } from '../control/server.js';
import { memoryBytesNeeded } from '../datapath/memory.js';
import { OverlayError } from '../errors.js';
import { ARENAS_SPARE, DRAIN_DEVICE_MS_MAX, DRAIN_MS_MAX } from '../limits.js';
import { TapSource } from '../overlay/tap-source.js';
import { Overlay } from '../overlay.js';
import { StateStore } from '../state/store.js';
import { after } from '../sys/clock.js';
import { lockDirectory } from '../sys/lock.js';
import { loadRemotePlugin } from '../varpd/remote.js';
import { Varpd } from '../varpd/varpd.js';
import { checkConfig, type Flags, readConfig } from './config.js';
import { becomeAnew, takeLinks } from './handover.js';
import { Health } from './health.js';
import { Reloader } from './reloader.js';
import { restoreDevices } from './restore.js';
import { checkRights, readRights } from './rights.js';

/** Faults of the settings, for which the exit code is 8. */
const configCodes = ['bad_config', 'config_unreadable', 'no_such_cpu'];

/** Gathers an option that is given several times. */
function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

const program = new Command('overlayd')
  .description('userland overlay networks: runs overlay devices and serves overlayadm')
  .option('--workers <n>', 'data-plane threads (default: one a CPU)')
  .option('--memory <size>', 'memory reserved for tables and buffers (default: 256M)')
  .option('--pin <cpus>', 'CPUs to bind the workers to, such as 0,2-3 (default: any)')
  .option('--bank <n>', 'send sockets of each worker on each underlay address (default: 16)')
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

try {
  const { config: file, test, ...flags } = program.parse().opts<Flags & { config?: string; test?: true }>();
  if (test) testConfig(flags, file);
  else await serve(flags, file);
} catch (error) {
  if (!(error instanceof OverlayError)) throw error;
  for (const text of [error.message, ...error.parts]) console.error(`overlayd: ${text}`);
  process.exit(configCodes.includes(error.code) ? 8 : 1);
}

function testConfig(flags: Flags, file: string | undefined): void {
  const checked = checkConfig(flags, file);
  if ('config' in checked) {
    console.log(`${file ?? 'flags'}: ok`);
    return;
  }
  for (const { text } of checked.faults) console.error(text);
  process.exitCode = 8;
}

async function serve(flags: Flags, file: string | undefined): Promise<void> {
  let reload: (() => void) | undefined;
  let isReloadWanted = false;
  process.on('SIGHUP', () => {
    isReloadWanted = true;
    reload?.();
  });
  const config = readConfig(flags, file);
  const log = pino({ name: 'overlayd', level: config.logLevel }, pino.destination({ fd: 2, sync: true }));
  const { workers, bank, memoryBytes, overlays } = config;
  const needs = { workers, bank, memoryBytes, devices: overlays.size };
  for (const sentence of checkRights(readRights(), needs)) log.warn({}, sentence);
  const links = takeLinks();
  const unlock = lockDirectory(config.stateDir);
  const store = StateStore.open(config.stateDir);
  const varpd = new Varpd();
  for (const specifier of config.plugin) varpd.register(await loadRemotePlugin(specifier, { log }));
  const overlay = await Overlay.start({
    workers,
    memoryBytes,
    cpus: config.pin,
    bank,
    ports: new TapSource(),
    log,
    varpd,
    store,
  });
  const health = new Health(overlay.fma);
  let server: ControlServer;
  try {
    await restoreDevices(overlay, store, links, { log, health });
    server = await ControlServer.start(overlay, config.socket, log, config);
  } catch (error) {
    await overlay.close();
    throw error;
  }
  const reloader = new Reloader(
    {
      overlay,
      log,
      health,
      read: () => readConfig(flags, file),
      setAccess: (access) => server.setAccess(access),
      setLogLevel: (level) => {
        log.level = level;
      },
    },
    config,
  );

  let isStopping = false;
  const end = async (signal: string, work: () => Promise<void>) => {
    if (isStopping) return;
    isStopping = true;
    log.info({ signal }, 'stopping');
    overlay.events.emit('daemon-stopping', { text: `by ${signal}` });
    after(DRAIN_MS_MAX + overlay.names.length * DRAIN_DEVICE_MS_MAX, () => process.exit(1));
    await server.close();
    await reloader.close();
    await work();
  };
  const stop = (signal: string) =>
    end(signal, async () => {
      await overlay.close();
      unlock();
      log.info({}, 'stopped');
      process.exit(0);
    });
  const restart = async (signal: string) => {
    if (isStopping || !reloader.mayRestart()) return;
    await end(signal, async () => {
      const kept = await overlay.handOver();
      log.info({ links: Object.keys(kept).length }, 'starting anew');
      becomeAnew(kept);
    });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('SIGUSR2', restart);
  await reloader.start();
  reload = () => void reloader.reload();
  if (isReloadWanted) reload();
  const memoryInUse = memoryBytesNeeded(workers + ARENAS_SPARE);
  overlay.events.emit('daemon-started', { text: `with ${workers} workers` });
  log.info({ workers, memoryBytes, memoryInUse, socket: config.socket, pid: process.pid }, 'ready');
}
