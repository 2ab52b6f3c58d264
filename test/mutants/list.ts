/** Faults that are planted, one at a time, into a copy of what is built: each must make a test fail. */

export interface Mutant {
  /** What the fault does. */
  readonly what: string;
  /** File of the build, below `dist/`. */
  readonly file: string;
  /** Text that is there once, without regard to white space, and what takes its place. */
  readonly from: string;
  readonly to: string;
  /** Test files, one of which must fail. */
  readonly tests: readonly string[];
}

/** Stands for `Engine.retire`, and waits for nobody. */
const AT_ONCE =
  '(async (_, steps) => { for (const step of Object.values(steps)) await step(); return true; })';

const lifetimes = ['lifetimes.js'];
const threads = ['replaced-threads.js'];

export const mutants: readonly Mutant[] = [
  {
    what: 'a quiesce waits for nobody',
    file: 'src/datapath/workers.js',
    from: 'while (epoch % 2 !== 0 &&',
    to: 'while (false &&',
    tests: lifetimes,
  },
  {
    what: 'a quiesce does not wait for replaced threads that still live',
    file: 'src/datapath/workers.js',
    from: 'while (this.#zombies.size > 0)',
    to: 'while (false)',
    tests: threads,
  },
  {
    what: 'the arena of a replaced thread is given out at once',
    file: 'src/datapath/workers.js',
    from: 'this.#zombies.add(arena);',
    to: 'this.#zombies.add(arena); this.#spares.push(arena);',
    tests: threads,
  },
  {
    what: 'the arena of a thread that has ended keeps what is on its rings',
    file: 'src/datapath/workers.js',
    from: 'this.options.onAbandoned(arena, true);',
    to: '',
    tests: threads,
  },
  {
    what: 'a worker that begins has what its predecessor had aside',
    file: 'src/datapath/workers.js',
    from: 'this.options.onAbandoned(worker.queue.arena, false);',
    to: '',
    tests: threads,
  },
  {
    what: 'nobody is forgiven after a pause',
    file: 'src/datapath/workers.js',
    from: 'worker.forgiveIdle(now);',
    to: ';',
    tests: threads,
  },
  {
    what: 'a closed TAP descriptor stays in the worker’s arena',
    file: 'src/datapath/queue.js',
    from: 'this.#store(layout.ARENA_TAP_FDS, device, -1);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'a closed TAP descriptor comes back when the queue moves to another arena',
    file: 'src/datapath/queue.js',
    from: 'this.#taps.delete(device);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'closed sockets stay in the worker’s arena',
    file: 'src/datapath/queue.js',
    from: 'this.#storeMux(mux, -1, new Array(sockets.send.length).fill(-1));',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'closed send sockets stay in the worker’s arena',
    file: 'src/datapath/queue.js',
    from: 'this.#storeMux(mux, -1, new Array(sockets.send.length).fill(-1));',
    to: 'this.#storeMux(mux, -1, []);',
    tests: lifetimes,
  },
  {
    what: 'closed sockets come back when the queue moves to another arena',
    file: 'src/datapath/queue.js',
    from: 'this.#muxes.delete(mux);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'descriptors of an arena’s former user stay in it',
    file: 'src/datapath/queue.js',
    from: 'i32.fill(-1, (this.arena + layout.ARENA_TAP_FDS) / 4, (this.arena + layout.ARENA_COUNTERS) / 4);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'sockets of a mux are closed without a quiesce',
    file: 'src/mux.js',
    from: 'await this.engine.retire(`the underlay',
    to: `await ${AT_ONCE}(\`the underlay`,
    tests: lifetimes,
  },
  {
    what: 'sockets of a mux are closed while the arenas have them',
    file: 'src/mux.js',
    from: 'this.engine.detachMux(mux.row);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'the socket of a group is closed without a quiesce',
    file: 'src/groups.js',
    from: 'await this.engine.retire(`the group',
    to: `await ${AT_ONCE}(\`the group`,
    tests: lifetimes,
  },
  {
    what: 'a device stops without a quiesce',
    file: 'src/overlay/attachment.js',
    from: 'await this.engine.retire(`the place of',
    to: `await ${AT_ONCE}(\`the place of`,
    tests: lifetimes,
  },
  {
    what: 'a device’s row is given out again without its rings being purged',
    file: 'src/overlay/deletion.js',
    from: 'await targets.purge(device.row);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'a device is deleted without quiesce and purge',
    file: 'src/overlay/deletion.js',
    from: 'await engine.quiesce(); await targets.purge(device.row);',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'a purge leaves what waits for room on a ring',
    file: 'src/overlay/targets.js',
    from: 'const lost = injects.forget(row);',
    to: 'const lost = 0;',
    tests: lifetimes,
  },
  {
    what: 'a purge does not wait for inject rings',
    file: 'src/overlay/targets.js',
    from: '!injects.hasPassed(ends) ||',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'a purge does not wait for wait queues',
    file: 'src/overlay/targets.js',
    from: '|| !injects.haveWaited(waits)',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'a purge does not wait for workers that are putting misses on their rings',
    file: 'src/overlay/targets.js',
    from: 'await this.engine.quiesce(); const missed',
    to: 'const missed',
    tests: lifetimes,
  },
  {
    what: 'a purge does not drain the miss rings',
    file: 'src/overlay/targets.js',
    from: 'while (!misses.hasPassed(missed))',
    to: 'while (false)',
    tests: lifetimes,
  },
  {
    what: 'targets are settled, and rows and slots freed, without a quiesce',
    file: 'src/overlay/targets.js',
    from: 'await this.#quiesce();',
    to: '',
    tests: lifetimes,
  },
  {
    what: 'a round frees rows that left while it waited',
    file: 'src/overlay/targets.js',
    from: 'retired();',
    to: 'engine.destinations.leaving()();',
    tests: lifetimes,
  },
  {
    what: 'a round frees slots and tables that left while it waited',
    file: 'src/overlay/targets.js',
    from: 'for (const reclaim of left)',
    to: 'for (const reclaim of [...this.#byRow.values()].map((each) => each.leaving()))',
    tests: lifetimes,
  },
  {
    what: 'destinations are given out again at once',
    file: 'src/datapath/destinations.js',
    from: 'this.#left.push(held);',
    to: 'this.tables.destinations.free(row);',
    tests: lifetimes,
  },
  {
    what: 'a list of destinations is freed at once',
    file: 'src/datapath/destinations.js',
    from: 'this.#left.push(held);',
    to: 'if (held.list !== undefined) this.pool.free(held.list); this.#left.push({ ...held, list: undefined });',
    tests: lifetimes,
  },
  {
    what: 'a target table that has grown is freed at once',
    file: 'src/datapath/target-table.js',
    from: 'this.#retired.push(this.#build); this.#build = next; this.#tombstones = 0;',
    to: 'this.#free(this.#build); this.#build = next; this.#tombstones = 0;',
    tests: lifetimes,
  },
  {
    what: 'a target table that is flushed is freed at once',
    file: 'src/datapath/target-table.js',
    from: 'this.#retired.push(this.#build); this.#build = next; this.#size = 0;',
    to: 'this.#free(this.#build); this.#build = next; this.#size = 0;',
    tests: lifetimes,
  },
  {
    what: 'an id is given out again at once',
    file: 'src/datapath/target-table.js',
    from: 'this.#left.set(mac, { id: entry.id });',
    to: 'this.#left.set(mac, { id: entry.id }); this.#freeIds.push(entry.id);',
    tests: ['target-table.js'],
  },
  {
    what: 'an id has the counts of its former owner',
    file: 'src/datapath/target-table.js',
    from: 'this.#zero(leaver.id);',
    to: '',
    tests: ['target-table.js'],
  },
  {
    what: 'a set of senders is freed without a quiesce',
    file: 'src/overlay/source-policy.js',
    from: 'void this.engine.retire(`the senders',
    to: `void ${AT_ONCE}(\`the senders`,
    tests: lifetimes,
  },
  {
    what: 'the link of a network namespace that has gone is closed without a quiesce',
    file: 'src/overlay/links.js',
    from: 'await engine.retire(`the link of',
    to: `await ${AT_ONCE}(\`the link of`,
    tests: lifetimes,
  },
  {
    what: 'what was retained is reclaimed without a quiesce',
    file: 'src/datapath/retired.js',
    from: 'const reason = await failureOf(this.quiesce); for',
    to: 'const reason = undefined; for (const part of this.#parts) part.isSettled = true; for',
    tests: threads,
  },
  {
    what: 'counters of a row are those of its former device',
    file: 'src/datapath/counters.js',
    from: 'clearDevice(row) {',
    to: 'clearDevice(row) { return;',
    tests: lifetimes,
  },
];
