/**
 * Links and their records, when the daemon is killed at any system call of what makes, moves and deletes a link: no link stays that
 * no record knows, and the name can be used again. Links that were left all the same are named, and deleted on demand.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { aliasOf } from '../src/overlay/tap-alias.js';
import { StateStore } from '../src/state/store.js';
import { testWith } from './harness/needs.js';

const orphans = suite('links and records');
const NEEDS = ['root', '/dev/net/tun', 'ip'];
const child = join(import.meta.dirname, 'harness', 'link-child.js');
/** System calls that change links or records. */
const CALLS = ['ioctl', 'sendto', 'rename', 'unlink', 'fsync', 'link', 'close'];
/** Runs at a time. */
const LANES = 3;

interface Said {
  readonly before: string[];
  readonly names: string[];
  readonly failures: unknown[];
  readonly problems: unknown[];
  readonly faults: string[];
  readonly left: number;
  readonly refused?: string;
}

/** Two network namespaces, and a state directory. */
class Place {
  static #count = 0;
  readonly directory = mkdtempSync(join(tmpdir(), 'overlayd-orphans-'));
  state = join(this.directory, 'state');
  readonly here: string;
  readonly zone: string;

  constructor() {
    const number = Place.#count++;
    this.here = `orphan-${process.pid}-${number}`;
    this.zone = `${this.here}z`;
    for (const name of [this.here, this.zone]) execFileSync('ip', ['netns', 'add', name]);
    this.ip('link', 'set', 'lo', 'up');
  }

  ip(...words: readonly string[]): string {
    return execFileSync('ip', ['-n', this.here, ...words], { encoding: 'utf8' });
  }

  /** Runs a task, with strace and its flags where some are given. Undefined when it was killed before it was done. */
  async run(task: string, strace: readonly string[] = []): Promise<Said | undefined> {
    const program = [process.execPath, child, this.state, task, this.zone];
    const words = ['netns', 'exec', this.here, ...strace, ...program];
    const said = await new Promise<string>((resolve, reject) => {
      const env = { ...process.env, NODE_OPTIONS: '', UV_THREADPOOL_SIZE: '1' };
      const running = spawn('ip', words, { stdio: ['ignore', 'pipe', 'inherit'], env });
      let text = '';
      running.stdout.on('data', (part) => {
        text += part;
      });
      running.on('error', reject);
      running.on('close', () => resolve(text));
    });
    const [, json] = said.split('\n');
    return json ? (JSON.parse(json) as Said) : undefined;
  }

  /** Links of overlays in both namespaces. */
  get links(): { name: string; alias: string; netns: string }[] {
    return [this.here, this.zone].flatMap((netns) => {
      const text = execFileSync('ip', ['-n', netns, '-j', 'link'], { encoding: 'utf8' });
      const all = JSON.parse(text) as { ifname: string; ifalias?: string }[];
      return all
        .filter(({ ifname }) => ifname !== 'lo')
        .map(({ ifname, ifalias = '' }) => ({
          name: ifname,
          alias: ifalias,
          netns: netns === this.here ? '' : netns,
        }));
    });
  }

  /** Names and namespaces of the recorded devices. */
  get records(): { name: string; netns: string }[] {
    const { devices } = StateStore.open(this.state).load();
    return devices.map(({ name, properties }) => ({ name, netns: String(properties.netns ?? '') }));
  }

  close(): void {
    for (const name of [this.here, this.zone]) execFileSync('ip', ['netns', 'delete', name]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function withPlace<T>(work: (place: Place) => Promise<T>): Promise<T> {
  const place = new Place();
  try {
    return await work(place);
  } finally {
    place.close();
  }
}

/** Calls of each kind that the program makes before its task, and up to its end, in its first thread. */
async function callsOf(task: string): Promise<Map<string, readonly [before: number, all: number]>> {
  return await withPlace(async (place) => {
    const trace = join(place.directory, 'trace');
    const flags = ['-f', '-qq', '-o', trace, '-e', `trace=write,${CALLS.join()}`];
    const said = await place.run(task, ['strace', ...flags]);
    assert.is(said?.refused, undefined);
    const lines = readFileSync(trace, 'utf8').split('\n');
    const [first] = lines[0]!.split(' ');
    const own = lines
      .filter((line) => line.startsWith(`${first} `))
      .map((line) => line.replace(/^\d+ +/, ''));
    const begin = own.findIndex((line) => line.startsWith('write(1, "begin'));
    assert.ok(begin > 0, 'the task begins');
    return new Map(
      CALLS.map((call) => {
        const isCall = (line: string) => line.startsWith(`${call}(`);
        return [call, [own.slice(0, begin).filter(isCall).length, own.filter(isCall).length]] as const;
      }),
    );
  });
}

/** Kills the task at one call, and asserts that links and records agree, before a restart and after it. */
async function killedAt(task: string, call: string, when: number): Promise<boolean> {
  return await withPlace(async (place) => {
    const where = `${task}, ${call} ${when}`;
    const inject = `inject=${call}:signal=KILL:when=${when}`;
    const flags = ['-f', '-qq', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject];
    const said = await place.run(task, ['strace', ...flags]);
    if (said) return false;
    const { records } = place;
    for (const { name, netns } of place.links) {
      const isRecorded = records.some((record) => record.name === name && record.netns === netns);
      assert.ok(isRecorded, `${where}: ${name} in '${netns}' has a record: ${JSON.stringify(records)}`);
    }
    const next = await place.run('use');
    assert.ok(next, `${where}: the next one starts`);
    assert.equal(next.failures, [], `${where}: all come back`);
    assert.equal(
      next.before,
      records.map(({ name }) => name),
      `${where}: what is recorded comes back`,
    );
    assert.equal(
      [next.refused, next.names, next.faults],
      [undefined, [], []],
      `${where}: the name is usable`,
    );
    assert.equal(place.links, [], `${where}: nothing is left`);
    return true;
  });
}

testWith(
  orphans,
  [...NEEDS, 'strace'],
  'killed at each system call of create, move and delete: links are recorded, names usable',
  async () => {
    const calls = await callsOf('life');
    const all = [...calls].flatMap(([call, [before, end]]) =>
      Array.from({ length: end - before }, (_, index) => [call, before + index + 1] as const),
    );
    // Many closes are of files that have nothing to do with it.
    const chosen = all.filter(([call], index) => call !== 'close' || index % 4 === 0);
    let kills = 0;
    const lane = async () => {
      for (let next = chosen.shift(); next; next = chosen.shift()) {
        if (await killedAt('life', ...next)) kills++;
      }
    };
    const asked = chosen.length;
    await Promise.all(Array.from({ length: LANES }, lane));
    assert.ok(asked >= 40, `${asked} places`);
    assert.ok(kills >= asked * 0.9, `${kills} of ${asked} kills`);
  },
);

/** A link as a killed daemon of before left it: persistent, with an alias, open nowhere. */
function leave(place: Place, name: string, overlay = name): void {
  place.ip('tuntap', 'add', 'name', name, 'mode', 'tap', 'multi_queue');
  place.ip('link', 'set', name, 'alias', aliasOf(overlay, 'vxlan', 7n));
}

testWith(orphans, NEEDS, 'a link without a record: named at the start, deleted by its name or by tidy', () =>
  withPlace(async (place) => {
    leave(place, 'ov0');
    leave(place, 'other');
    place.ip('tuntap', 'add', 'name', 'tap9', 'mode', 'tap', 'multi_queue');
    place.ip('link', 'set', 'tap9', 'alias', 'somebody else');
    const seen = await place.run('create');
    assert.equal(seen?.faults, ['links of overlays without a record: ov0, other']);
    assert.match(seen?.refused ?? '', /'ov0' already, which an overlayd left .*delete-overlay ov0\)/);
    const deleted = await place.run('delete');
    assert.equal([deleted?.refused, deleted?.left], [undefined, 1], 'the other one is named still');
    assert.equal(place.links.map(({ name }) => name).sort(), ['other', 'tap9']);
    const tidied = await place.run('tidy');
    assert.equal([tidied?.refused, tidied?.left], [undefined, 0]);
    assert.equal(
      place.links.map(({ name }) => name),
      ['tap9'],
      'a link of somebody else stays',
    );
    const used = await place.run('use');
    assert.equal([used?.refused, used?.names], [undefined, []]);
  }),
);

testWith(
  orphans,
  NEEDS,
  'a link that another process has open, or that is of another overlay, is not taken',
  () =>
    withPlace(async (place) => {
      assert.equal((await place.run('create'))?.names, ['ov0']);
      const words = ['netns', 'exec', place.here, process.execPath, child, place.state, 'hold', place.zone];
      const other = spawn('ip', words, { stdio: ['ignore', 'pipe', 'inherit'] });
      const gone = once(other, 'exit');
      await once(other.stdout!, 'data');
      const beside = await place.run('look');
      assert.equal([beside?.names, beside?.faults], [[], []], 'nor does it count as left');
      assert.match(JSON.stringify(beside?.failures), /another process has the link 'ov0' open/);
      const { state } = place;
      place.state = join(place.directory, 'other');
      assert.equal(
        (await place.run('look'))?.faults,
        [],
        'a daemon with another state directory leaves it alone',
      );
      assert.equal((await place.run('tidy'))?.refused, undefined);
      assert.is(place.links.length, 1);
      place.state = state;
      other.kill('SIGKILL');
      await gone;
      place.ip('link', 'set', 'ov0', 'name', 'renamed0');
      assert.equal((await place.run('look'))?.names, ['ov0'], 'a renamed link is found by its alias');
      place.ip('link', 'set', 'renamed0', 'alias', aliasOf('ov1', 'vxlan', 8n));
      place.ip('link', 'set', 'renamed0', 'name', 'ov0');
      const foreign = await place.run('look');
      assert.equal(foreign?.names, [], 'the link says that it is of ov1');
      assert.match(JSON.stringify(foreign?.failures), /'ov0' that is not ours, or another overlay's/);
    }),
);

orphans.run();
