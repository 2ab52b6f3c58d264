/**
 * A packet cannot change forwarding: after millions of received frames, valid, spoiled and made up, under every source
 * check, the tables are what they were, to the byte. LEARNING_SEED repeats a run, LEARNING_FRAMES makes it longer.
 */
import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { createSources } from '../src/datapath/sources.js';
import { ipBytes } from '../src/ip.js';
import { AF_INET6 } from '../src/sys/abi.js';
import { randomBetween } from '../src/sys/random.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { vxlanEncapsulation } from './harness/encapsulations.js';
import { FrameFuzzer } from './harness/frame-fuzzer.js';
import { ReceiveRig } from './harness/receive-rig.js';
import { Xorshift } from './harness/xorshift.js';
import { sampleFrames } from './reference/frames.js';

const SEED = Number(process.env.LEARNING_SEED ?? randomBetween(1, 0x7fffffff));
const FRAMES = Number(process.env.LEARNING_FRAMES ?? 2_000_000);
/** Targets of each device; half of what is received claims to come from one of them. */
const TARGETS = 500;
const SENDERS = 40;
/** Each of these must be reached this often. */
const REACHED_MIN = 1000;
const HEADER_BYTES = 8;

const learning = suite('no learning');

const senders = Array.from({ length: SENDERS }, (_, index) => `fd00::${(index + 1).toString(16)}`);
const strangers = ['fd00:1::1', '::ffff:192.0.2.1', '::'];
const macOf = (index: number) => 0x020820000000 + index * 3;

/** Everything that decides where frames go: all but the arenas, which the workers own. */
function digest({ views, pool }: ReceiveRig): string {
  const hash = createHash('sha256');
  const { HEADER_OFFSET, ARENAS_OFFSET } = layout;
  // The bell, which a worker rings, is in the header; what was never touched is zero and stays so.
  hash.update(views.u8.subarray(HEADER_OFFSET, HEADER_OFFSET + layout.HEADER_BELL));
  hash.update(views.u8.subarray(HEADER_OFFSET + layout.HEADER_BELL + 4, ARENAS_OFFSET));
  const start = views.u32[(HEADER_OFFSET + layout.HEADER_POOL) / 4]!;
  hash.update(views.u8.subarray(start, start + pool.bytes));
  return hash.digest('hex');
}

class Run {
  readonly rig = new ReceiveRig();
  readonly random = new Xorshift(SEED);
  readonly fuzzer = new FrameFuzzer(
    this.random,
    [...sampleFrames(20), ...sampleFrames(700)],
    { vnetids: [1, 2, 3], edges: [14, 1414, 1418], macs: 1, streams: [] },
    this.rig.views.u8,
    // Nothing is sent.
    this.rig.arena + layout.ARENA_TX_BUFFER,
  );
  readonly #names = [...senders, ...strangers].map((ip) => sockaddr(AF_INET6, ip, 4789));

  constructor() {
    const { rig } = this;
    const sources = createSources(
      rig.views,
      rig.core,
      rig.pool,
      senders.map((ip) => ipBytes(ip)),
    );
    rig.addDevice(1, layout.SOURCE_MODE_OFF, 0);
    rig.addDevice(2, layout.SOURCE_MODE_KNOWN, sources);
    rig.addDevice(3, layout.SOURCE_MODE_STRICT, sources);
    const header = new Uint8Array(HEADER_BYTES);
    const rows = this.#names.slice(0, SENDERS).map((name) => rig.destinations.hold('', name, header));
    const pairs = this.#names.slice(0, SENDERS - 1).map((name, index) => {
      const kind = index % 2 ? layout.DESTINATION_KIND_SPREAD : layout.DESTINATION_KIND_REPLICATE;
      return rig.destinations.holdList('', kind, [name, this.#names[index + 1]!], header);
    });
    const flags = [
      layout.TARGET_VALID,
      layout.TARGET_VALID,
      layout.TARGET_DRAINING,
      layout.TARGET_DROP,
      layout.TARGET_PENDING,
      layout.TARGET_PENDING | layout.TARGET_FULL,
    ];
    for (const table of rig.targets) {
      for (let index = 0; index < TARGETS; index++) {
        const list = index % 3 ? rows : pairs;
        table.insert(macOf(index), flags[index % flags.length]!, list[index % list.length]!, index);
      }
      table.leaving()();
    }
  }

  /** A batch of datagrams, from anybody, with any inner source. */
  receive(count: number): void {
    const { fuzzer, random, rig } = this;
    const { u8 } = rig.views;
    for (let index = 0; index < count; index++) {
      fuzzer.makeDatagram(vxlanEncapsulation);
      const at = rig.slot(index);
      fuzzer.copyTo(at);
      const target = random.below(TARGETS);
      const choice = random.below(8);
      if (choice < 6 && fuzzer.length >= HEADER_BYTES + 14) {
        // The address of a target, one next to it, or any; now and then that of a group.
        const mac = choice < 4 ? macOf(target) : macOf(target) + random.below(3);
        for (let octet = 0; octet < 6; octet++) {
          u8[at + HEADER_BYTES + 6 + octet] = Math.floor(mac / 256 ** (5 - octet)) % 256;
        }
      }
      const name =
        random.below(4) === 0 ? random.below(this.#names.length) : this.#senderOf(target, random.below(2));
      rig.note(index, fuzzer.length, this.#names[name]!);
    }
    rig.decide(count);
  }

  /** Index of a sender that the target may well be behind. */
  #senderOf(target: number, which: number): number {
    return target % 3 ? target % SENDERS : ((target % (SENDERS - 1)) + which) % SENDERS;
  }
}

learning(`${FRAMES} received frames change no table, seed ${SEED}`, () => {
  const run = new Run();
  const { rig, random } = run;
  const before = digest(rig);
  let frames = 0;
  let asked = 0;
  while (frames < FRAMES) {
    const count = 1 + random.below(layout.BATCH_MAX);
    run.receive(count);
    frames += count;
    if (random.below(64) === 0) asked += rig.takeMisses();
  }
  asked += rig.takeMisses();
  assert.is(digest(rig), before, 'a received frame has changed a table');
  const { passed, traps } = rig;
  console.log(`  ${frames} frames, ${passed} passed, ${asked} sources asked about, seed ${SEED}`);
  assert.is(traps, 0, 'the core trapped');
  for (const [what, count] of [...rig.counts(), ['passed', passed], ['asked about', asked]] as const) {
    assert.ok(count >= Math.min(REACHED_MIN, FRAMES / 2000), `${what}: ${count}`);
  }
});

learning('what would have changed is seen', () => {
  const { rig } = new Run();
  const before = digest(rig);
  rig.targets[0]!.update(macOf(0), layout.TARGET_VALID, 2, 0);
  assert.is.not(digest(rig), before);
});

learning.run();
