/**
 * What is kept of devices over a restart of the daemon: `devices/<name>.json` each, and `targets/<name>` apart. After a
 * crash at any moment a file is old or new, never between; what was damaged since is set aside and the rest is loaded.
 * One process at a time uses a directory (`src/sys/lock.ts`).
 */
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { assert, OverlayError } from '../errors.js';
import { Serial } from '../serial.js';
import { setAside } from './aside.js';
import {
  DEVICE_FILE_BYTES_MAX,
  DEVICE_VERSION,
  decodeDevice,
  encodeDevice,
  type Migrations,
  migrations,
  type Opened,
} from './device-file.js';
import {
  GONE,
  goneOf,
  isLeftover,
  makeDirectory,
  moveIfThere,
  quietly,
  readWhole,
  removeFile,
  replaceFile,
  syncDirectory,
} from './disk.js';
import { newerFault, stateFault } from './fault.js';
import type { DeviceRecord, TargetRecord } from './record.js';
import { isName } from './record-check.js';
import { BadTargets, readTargets, writeTargets } from './target-file.js';

const SUFFIX = '.json';
/** Saves of one device's targets that wait for the one at work. The daemon makes one at a time. */
const SAVES_WAITING_MAX = 8;

/** A file that was not loaded. */
export interface StateProblem {
  readonly file: string;
  /** Name of the device it is of, as the file's name has it. */
  readonly name: string;
  /** state_bad: damaged, and set aside. state_newer: left alone. state_failed: the system refused something. */
  readonly code: 'state_bad' | 'state_newer' | 'state_failed';
  /** A sentence with the remedy. */
  readonly reason: string;
}

/** The saves of one device's targets that are not over. */
interface Saves {
  readonly serial: Serial;
  readonly jobs: Set<{ isUnwanted: boolean }>;
}

export class StateStore {
  readonly #devices: string;
  readonly #targets: string;
  readonly #saves = new Map<string, Saves>();

  private constructor(
    directory: string,
    readonly by: Migrations,
  ) {
    this.#devices = join(directory, 'devices');
    this.#targets = join(directory, 'targets');
  }

  /**
   * A store in a directory, which is made where needed, for its user alone. Throws OverlayError, `state_failed`.
   * @param by how files of older versions are read, for tests
   */
  static open(directory: string, by: Migrations = migrations): StateStore {
    const store = new StateStore(directory, by);
    for (const folder of [store.#devices, store.#targets]) {
      attempt(folder, 'written', () => makeDirectory(folder));
    }
    return store;
  }

  /**
   * The devices, in the order in which they came about, and what stands in the way of others. Removes what a crash left
   * behind. Throws OverlayError (`state_failed`) when the directories cannot be read.
   */
  load(): { devices: DeviceRecord[]; problems: StateProblem[] } {
    const devices: DeviceRecord[] = [];
    const problems: StateProblem[] = [];
    const files = this.#list(this.#devices);
    this.#tidy(files, problems);
    for (const file of files.filter((one) => one.endsWith(SUFFIX))) {
      const name = file.slice(0, -SUFFIX.length);
      const path = join(this.#devices, file);
      try {
        const opened = this.#open(name);
        if (opened?.is === 'good') devices.push(opened.record);
        else if (opened?.is === 'bad') problems.push(this.#setAside(path, name, opened.reason));
        else if (opened) problems.push(problem(path, name, newerFault(path, opened.version, DEVICE_VERSION)));
      } catch (error) {
        problems.push(problem(path, name, stateFault(error, path, 'read')));
      }
    }
    devices.sort((one, other) => one.id - other.id || (one.name < other.name ? -1 : 1));
    return { devices, problems };
  }

  /**
   * Keeps a device's record in place of the one before. Throws OverlayError: `state_newer` for a device whose file is
   * of a newer overlayd, and `state_failed` otherwise; the record before is as it was then.
   */
  save(record: DeviceRecord): void {
    const path = this.#pathOf(record.name);
    const bytes = encodeDevice(record);
    attempt(path, 'written', () => {
      // What is left of an earlier device of that name is not this one's.
      if (!this.#refuseNewer(record.name)) this.#removeTargets(record.name);
      replaceFile(path, bytes);
    });
  }

  /**
   * Keeps nothing of a device any more; nor do saves of its targets that are not over. Nothing happens to what is not
   * kept. Throws OverlayError like `save`: device and targets are as they were then.
   */
  remove(name: string): void {
    const path = this.#pathOf(name);
    const targets = join(this.#targets, name);
    const undo: (() => void)[] = [];
    try {
      this.#refuseNewer(name);
      // Targets first: where a crash comes between, the device still is there and load gives them back.
      for (const file of [targets, path]) {
        if (!moveIfThere(file, goneOf(file))) continue;
        undo.unshift(() => {
          moveIfThere(goneOf(file), file);
          syncDirectory(dirname(file));
        });
        syncDirectory(dirname(file));
      }
    } catch (error) {
      for (const work of undo) quietly(work);
      throw stateFault(error, path, 'removed');
    }
    for (const file of [path, targets]) quietly(() => removeFile(goneOf(file)));
    for (const job of this.#saves.get(name)?.jobs ?? []) job.isUnwanted = true;
  }

  /**
   * Keeps a device's targets in place of those before. `rows` is read over many turns of the event loop, about a
   * thousand at a time. Saves of one device come one after the other; one that finds its device removed resolves, and
   * keeps nothing. Rejects with OverlayError, `state_failed` or `state_newer`, and with the signal's reason: those
   * before are as they were then.
   */
  async saveTargets(name: string, rows: Iterable<TargetRecord>, signal?: AbortSignal): Promise<void> {
    assert(isName(name), `'${name}' is no device's name`);
    let saves = this.#saves.get(name);
    if (!saves) {
      saves = { serial: new Serial(), jobs: new Set() };
      this.#saves.set(name, saves);
    }
    const { serial, jobs } = saves;
    if (jobs.size > SAVES_WAITING_MAX) {
      throw new OverlayError(
        'EAGAIN',
        'state_failed',
        `the targets of ${name} cannot be kept now: ${jobs.size} saves wait; try again when they are over`,
      );
    }
    const job = { isUnwanted: false };
    jobs.add(job);
    try {
      await serial.run(() => writeTargets(join(this.#targets, name), rows, () => job.isUnwanted, signal));
    } finally {
      jobs.delete(job);
      if (jobs.size === 0) this.#saves.delete(name);
    }
  }

  /**
   * The targets that are kept of a device, about a thousand at a time; none when none are. The file is checked before
   * the first is given. Throws OverlayError: `state_bad` for a file that is damaged, which is set aside, `state_newer`
   * for one of a newer overlayd, which is left alone, and `state_failed`.
   */
  async *loadTargets(name: string): AsyncGenerator<TargetRecord[]> {
    assert(isName(name), `'${name}' is no device's name`);
    const path = join(this.#targets, name);
    try {
      yield* readTargets(path);
    } catch (error) {
      if (!(error instanceof BadTargets)) throw stateFault(error, path, 'read');
      const { code, reason } = this.#setAside(path, name, error.message);
      throw new OverlayError('EBADMSG', code, reason);
    }
  }

  #pathOf(name: string): string {
    assert(isName(name), `'${name}' is no device's name`);
    return join(this.#devices, name + SUFFIX);
  }

  #list(folder: string): string[] {
    return attempt(folder, 'read', () => readdirSync(folder).sort());
  }

  /** What the file of a device is, undefined when there is none. Throws what the system says. */
  #open(name: string): Opened | undefined {
    const read = readWhole(join(this.#devices, name + SUFFIX), DEVICE_FILE_BYTES_MAX);
    if (read === undefined) return undefined;
    if (!Buffer.isBuffer(read)) return { is: 'bad', reason: read.fault };
    return decodeDevice(read, name, this.by);
  }

  /** True when there is a file of the device. Throws for one of a newer overlayd. */
  #refuseNewer(name: string): boolean {
    const opened = this.#open(name);
    if (opened?.is === 'newer') throw newerFault(this.#pathOf(name), opened.version, DEVICE_VERSION);
    return opened !== undefined;
  }

  #removeTargets(name: string): void {
    const path = join(this.#targets, name);
    for (const file of [path, goneOf(path)]) removeFile(file);
  }

  /** Sets a file aside, and says so. */
  #setAside(path: string, name: string, why: string): StateProblem {
    const begin = `${path} is not used: ${why};`;
    try {
      const reason = `${begin} it is now ${setAside(path)}: set the device up anew, or bring a good copy back`;
      return { file: path, name, code: 'state_bad', reason };
    } catch (error) {
      const { message } = stateFault(error, path, 'removed');
      return { file: path, name, code: 'state_bad', reason: `${begin} nor can it be set aside: ${message}` };
    }
  }

  /** Ends what a crash interrupted, and removes targets of devices that there are not. */
  #tidy(files: readonly string[], problems: StateProblem[]): void {
    const wanted = new Set(files);
    const targets = new Set(this.#list(this.#targets));
    const work = (path: string, name: string, how: () => void) => {
      try {
        how();
      } catch (error) {
        problems.push(problem(path, name, stateFault(error, path, 'removed')));
      }
    };
    for (const file of files) {
      if (!isLeftover(file) && !file.startsWith(GONE)) continue;
      const path = join(this.#devices, file);
      work(path, file, () => removeFile(path));
    }
    for (const file of targets) {
      const path = join(this.#targets, file);
      const name = file.startsWith(GONE) ? file.slice(GONE.length) : file;
      const isGone = file !== name;
      if (isLeftover(file)) work(path, file, () => removeFile(path));
      else if (!isName(name)) continue;
      else if (!wanted.has(name + SUFFIX) || (isGone && targets.has(name))) {
        work(path, name, () => removeFile(path));
      } else if (isGone) work(path, name, () => moveIfThere(path, join(this.#targets, name)));
    }
  }
}

function problem(file: string, name: string, { code, message }: OverlayError): StateProblem {
  return { file, name, code: code === 'state_newer' ? code : 'state_failed', reason: message };
}

function attempt<T>(file: string, deed: 'read' | 'written', work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw stateFault(error, file, deed);
  }
}
