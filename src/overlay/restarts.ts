/** What of the devices outlives the daemon: links that are handed over to the next one, and devices that it brings back. */
import { OverlayError } from '../errors.js';
import { RESUMES_MAX } from '../limits.js';
import type { Log } from '../log.js';
import type { DeviceRecord } from '../state/record.js';
import { isOverWithin, monotonicMs, sleep } from '../sys/clock.js';
import type { Devices } from './devices.js';
import type { Life } from './life.js';
import type { Perimeters } from './perimeter.js';
import type { Entry } from './setprop.js';

/** The process before this one may be closing its links still: the longest that is waited for, for all of them together. */
const ATTACHED_MS_MAX = 2000;
const ATTACHED_POLL_MS = 50;

/** A device that could not be brought back. */
export interface RestoreFailure {
  readonly name: string;
  readonly error: OverlayError;
  /** The descriptors that were handed over for it have been closed with it. */
  readonly hasTaken: boolean;
}

export interface RestartsContext {
  readonly devices: Devices;
  readonly life: Life;
  readonly perimeters: Perimeters;
  readonly log: Log;
}

export class Restarts {
  constructor(readonly context: RestartsContext) {}

  /**
   * See `Overlay.handOver`.
   * @param stop stops the engine, with each device ended as it is told
   */
  async handOver(
    msMax: number,
    stop: (end: (entry: Entry) => Promise<void>) => Promise<void>,
  ): Promise<Record<string, readonly number[]>> {
    const { devices, life, perimeters, log } = this.context;
    const fds: Record<string, readonly number[]> = {};
    const left = new Set(devices.entries.values());
    const pass = ({ device }: Entry) => {
      device.port.handOver();
      fds[device.name] = device.port.fds;
    };
    const ended = stop(async (entry) => {
      left.add(entry);
      if (isPassedOn(entry)) {
        await life.deletion.letGo(entry);
        pass(entry);
      } else await life.deletion.remove(entry);
      left.delete(entry);
    });
    try {
      if (await isOverWithin(ended, msMax)) return fds;
      log.error(
        { busy: perimeters.busy },
        'not everything has ended in time; the links are handed over all the same',
      );
    } catch (error) {
      log.error({ err: error }, 'the end of the devices failed; the links are handed over all the same');
    }
    for (const entry of [...left, ...devices.entries.values()]) if (isPassedOn(entry)) pass(entry);
    return fds;
  }

  /** See `Overlay.restore`. */
  async restore(
    records: readonly DeviceRecord[],
    fds: Readonly<Record<string, readonly number[]>>,
    isEnding: () => boolean,
  ): Promise<RestoreFailure[]> {
    const { devices, life, perimeters } = this.context;
    const failures: RestoreFailure[] = [];
    const deadline = monotonicMs() + ATTACHED_MS_MAX;
    for (const record of [...records].sort((one, other) => one.id - other.id)) {
      const { name } = record;
      if (isEnding()) break;
      let hasTaken = false;
      const onTaken = () => {
        hasTaken = true;
      };
      try {
        const restore = () => life.restore(record, fds[name] ?? [], onTaken);
        await perimeters.run(name, () => patiently(deadline, restore));
      } catch (error) {
        if (!(error instanceof OverlayError)) throw error;
        failures.push({ name, error, hasTaken });
        devices.missing.set(name, record);
      }
    }
    return failures;
  }

  /** See `Overlay.resume`. */
  async resume(): Promise<void> {
    const { devices, life } = this.context;
    const left = [...devices.entries.values()];
    const next = async (): Promise<void> => {
      for (let entry = left.shift(); entry; entry = left.shift()) await life.resume(entry);
    };
    await Promise.all(Array.from({ length: RESUMES_MAX }, next));
  }
}

/** Tries again until the deadline while another process has the link open. */
async function patiently(deadline: number, work: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const isAttached = error instanceof OverlayError && error.code === 'link_attached';
      if (!isAttached || monotonicMs() > deadline) throw error;
      await sleep(ATTACHED_POLL_MS);
    }
  }
}

/** Its link is there after a restart, and so is its record. */
function isPassedOn({ device }: Entry): boolean {
  return device.isKept && !device.isLinkGone && !device.isAway;
}
