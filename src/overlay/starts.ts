/** Start and stop of activated devices, with their links: what fails degrades the device and is tried again. */
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import { START_RETRY_MS, START_RETRY_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import { after } from '../sys/clock.js';
import type { Attachments } from './attachment.js';
import type { Devices } from './devices.js';
import type { Mtus } from './mtus.js';
import type { Perimeters } from './perimeter.js';
import type { Entry } from './setprop.js';

export interface StartsContext {
  readonly devices: Devices;
  readonly attachments: Attachments;
  readonly mtus: Mtus;
  readonly perimeters: Perimeters;
  readonly fma: Fma;
  readonly events: Events;
  readonly log: Log;
}

export class Starts {
  constructor(readonly context: StartsContext) {}

  /** Starts what is to be started; what fails degrades the device and is tried again. */
  async startIfUp(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    device.cancelRetry?.();
    device.cancelRetry = undefined;
    if (!device.isActivated || device.isLinkGone || device.isAway) return;
    // With what it knew before, a device forwards while its plugin is started.
    if (lookup.isRouted) await this.start(entry);
    if (!lookup.instance.isActive) {
      await this.#activateAgain(entry);
      if (lookup.isRouted && !device.isStarted) await this.start(entry);
    }
  }

  /** Starts it with the plugin as it is, where its link is up. */
  async start(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    const { fma, attachments, events } = this.context;
    if (!device.isUp || device.isStarted) return;
    try {
      lookup.applySources();
      await attachments.start(device, lookup.route());
      this.context.mtus.follow([entry]);
      device.retries = 0;
      device.isNamespaceMissing = false;
      events.emit('started', { device: device.name, text: 'it forwards' });
      fma.restore(device.name, 'start_failed');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      device.isNamespaceMissing = error.code === 'no_such_netns';
      fma.degrade(
        device.name,
        'start_failed',
        `not started: ${error.message} (${error.errno}); will try again`,
      );
      this.#retryLater(entry);
    }
  }

  /** After a restart or a change: the plugin is asked to take the device on, as often as it takes. */
  async #activateAgain(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    const { fma } = this.context;
    try {
      await lookup.activate();
      this.context.mtus.follow([entry]);
      fma.restore(device.name, 'lookup_stale');
      if (device.isStarted) lookup.applySources();
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      const serves = lookup.dynamic ? 'frames go to what was known before' : 'nothing is forwarded';
      fma.degrade(device.name, 'lookup_stale', `${error.message}; ${serves}, and it is tried again`);
      this.#retryLater(entry);
    }
  }

  #retryLater(entry: Entry): void {
    const { device } = entry;
    const { log, perimeters } = this.context;
    if (device.cancelRetry) return;
    const pauseMs = Math.min(START_RETRY_MS * 2 ** device.retries++, START_RETRY_MS_MAX);
    device.cancelRetry = after(pauseMs, () => {
      perimeters
        .run(device.name, () => this.retry(entry))
        .catch((error) => log.error({ err: error }, 'retry failed'));
    });
  }

  /** Tries again now what failed before. */
  async retry(entry: Entry): Promise<void> {
    if (this.context.devices.isThere(entry)) await this.startIfUp(entry);
  }

  /** Its link has gone down, or away. */
  async stop({ device }: Entry): Promise<void> {
    device.cancelRetry?.();
    device.cancelRetry = undefined;
    device.retries = 0;
    if (device.isStarted)
      this.context.events.emit('stopped', { device: device.name, text: 'its link went down' });
    await this.context.attachments.stop(device);
    // It was told to stop: not being started is no fault now.
    this.context.fma.restore(device.name, 'start_failed');
  }
}
