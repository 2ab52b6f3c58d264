/** The daemon's life: starts what there is, serves, and does what signals ask for until one of them ends it. */
import { pino } from 'pino';
import { ControlServer } from '../control/server.js';
import { memoryBytesNeeded } from '../datapath/memory.js';
import { ARENAS_SPARE, RESUME_WAIT_MS } from '../limits.js';
import { TapSource } from '../overlay/tap-source.js';
import { Overlay } from '../overlay.js';
import { StateStore } from '../state/store.js';
import { isOverWithin } from '../sys/clock.js';
import { leave } from '../sys/leave.js';
import { lockDirectory } from '../sys/lock.js';
import { loadRemotePlugin } from '../varpd/remote.js';
import { Varpd } from '../varpd/varpd.js';
import { type Flags, readConfig } from './config.js';
import { Ending } from './ending.js';
import { takeLinks } from './handover.js';
import { Health } from './health.js';
import { LogStream } from './log-stream.js';
import { Reloader } from './reloader.js';
import { restoreDevices } from './restore.js';
import { checkRights, readRights } from './rights.js';
import type { Signals } from './signals.js';

/**
 * Resolves when the daemon serves, which goes on until a signal. Throws what is wrong with the configuration, and what
 * starting gives.
 */
export async function serve(flags: Flags, file: string | undefined, signals: Signals): Promise<void> {
  const config = readConfig(flags, file);
  const log = pino({ name: 'overlayd', level: config.logLevel }, new LogStream(2));
  const { workers, bank, batch, busyPoll: busyPollUs, memoryBytes, overlays } = config;
  const isSplit = config.threads === 'split';
  const needs = { workers, bank, memoryBytes, devices: overlays.size };
  for (const sentence of checkRights(readRights(), needs)) log.warn({}, sentence);
  const links = takeLinks();
  signals.listen(() => {
    const signal = signals.take('stop');
    if (signal === undefined) return;
    // There is no device yet that would have to be brought to an end.
    log.info({ signal }, 'stopped before it served');
    leave(0);
  });
  lockDirectory(config.stateDir);
  const store = StateStore.open(config.stateDir);
  const varpd = new Varpd();
  for (const specifier of config.plugin) varpd.register(await loadRemotePlugin(specifier, { log }));
  const overlay = await Overlay.start({
    workers,
    isSplit,
    memoryBytes,
    cpus: config.pin,
    tuning: { batch, busyPollUs },
    bank,
    ports: new TapSource(config.ring),
    log,
    varpd,
    store,
  });
  const health = new Health(overlay.fma);
  let server: ControlServer;
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
  const ending = new Ending({ overlay, varpd, log });
  const end = () => {
    const stop = signals.take('stop');
    if (stop !== undefined) ending.begin('stop', stop);
    const restart = signals.take('restart');
    if (restart !== undefined && !ending.isUnderWay && reloader.mayRestart())
      ending.begin('restart', restart);
  };
  signals.listen(end);
  try {
    await restoreDevices(overlay, store, links, { log, health, isEnding: () => ending.isStopping });
    // Mostly a matter of a moment; nobody need wait for a plugin that hangs, or for a million targets.
    const resumed = overlay.resume().catch((error: unknown) => {
      log.error({ err: error }, 'the rest of the restore failed');
    });
    if (!(await isOverWithin(resumed, RESUME_WAIT_MS))) log.info({}, 'serving, while devices come back');
    server = await ControlServer.start(overlay, config.socket, log, config);
  } catch (error) {
    await overlay.close();
    throw error;
  }
  const declared = ending.isUnderWay ? Promise.resolve() : reloader.start();
  ending.arm({ server, reloader });
  signals.listen(() => {
    end();
    // Behind the declared overlays, which are being made.
    if (signals.take('reload') !== undefined) void reloader.reload();
  });
  await declared;
  if (ending.isUnderWay) return;
  const threads = overlay.engine.workers.list.length;
  const memoryInUse = memoryBytesNeeded(threads + ARENAS_SPARE);
  overlay.events.emit('daemon-started', { text: `with ${threads} workers` });
  log.info({ workers: threads, memoryBytes, memoryInUse, socket: config.socket, pid: process.pid }, 'ready');
}
