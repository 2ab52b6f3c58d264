/**
 * Offloads between two hosts with real links: whatever they are set to, what arrives is what was sent, byte for byte, and the
 * counters say which were used.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { type OffloadName, offloadNames } from '../src/offload.js';
import { assertBooks } from './harness/books.js';
import { type Daemon, Hosts, underlay } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { lines, nextPort, type Transfer, transfer } from './harness/transfer.js';
import { Xorshift } from './harness/xorshift.js';

const offloads = suite('offloads of two hosts');
const needs = ['root', '/dev/net/tun'];
const BYTES = 12 * 1024 * 1024;
const TOGGLES = Number(process.env.TOGGLES ?? 1000);
const inner = { a: '198.51.100.1', b: '198.51.100.2' } as const;

async function withPair(
  work: (hosts: Hosts, daemons: { a: Daemon; b: Daemon }) => Promise<void>,
  options: { flags?: readonly string[] } = {},
): Promise<void> {
  const hosts = new Hosts();
  try {
    const daemons = { a: await hosts.daemon('a', options), b: await hosts.daemon('b', options) };
    for (const [side, other] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const) {
      await daemons[side].createOverlay(hosts[side], 'ov0', 7, underlay[4][side], underlay[4][other]);
      hosts.address(side, 'ov0', `${inner[side]}/24`);
    }
    await work(hosts, daemons);
    for (const side of ['a', 'b'] as const) {
      await assertBooks(hosts[side], daemons[side], 'ov0', `${underlay[4][side]}:4789`);
    }
  } finally {
    await hosts.close();
  }
}

function set(daemon: Daemon, name: OffloadName, value: string): Promise<unknown> {
  return daemon.client.put(`/v1/overlays/ov0/properties/${name}`, { value });
}

function send(hosts: Hosts, from: 'a' | 'b', seed: number, kinds?: Transfer['kinds']): Promise<void> {
  const to = inner[from === 'a' ? 'b' : 'a'];
  return transfer({ hosts, from, to, seed, bytes: BYTES, ...(kinds ? { kinds } : {}) });
}

/** What has been counted at a device. */
async function counts(daemon: Daemon): Promise<Record<string, number>> {
  const { counters } = (await daemon.stats()).overlays.ov0!;
  return Object.fromEntries(Object.entries(counters).map(([name, value]) => [name, Number(value)]));
}

/** What has been counted between two moments. */
async function during(daemon: Daemon, work: () => Promise<void>): Promise<Record<string, number>> {
  const before = await counts(daemon);
  await work();
  const after = await counts(daemon);
  return Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - before[name]!]));
}

const settings: readonly { readonly name: string; readonly off: readonly OffloadName[] }[] = [
  { name: 'all of them', off: [] },
  { name: 'none of them', off: offloadNames },
  ...offloadNames.map((name) => ({ name: `all but ${name}`, off: [name] })),
];

testWith(offloads, needs, 'with all, with none, and without each: what arrives is what was sent', () =>
  withPair(async (hosts, daemons) => {
    for (const [turn, { name, off }] of settings.entries()) {
      for (const daemon of [daemons.a, daemons.b]) {
        for (const each of offloadNames) await set(daemon, each, off.includes(each) ? 'off' : 'auto');
      }
      let received: Record<string, number> = {};
      const sent = await during(daemons.a, async () => {
        received = await during(daemons.b, () => send(hosts, 'a', turn + 1));
      });
      await send(hosts, 'b', turn + 100);
      const isOff = (each: OffloadName) => off.includes(each);
      const cuts = !isOff('checksum') && !(isOff('tso') && isOff('uso'));
      assert.is(sent.tx_super_frames! > 0, cuts, `${name}: super-frames from the link`);
      assert.is(sent.tx_datagrams! > sent.tx_messages!, !isOff('udp_segment'), `${name}: datagrams joined`);
      assert.is(received.rx_joined! > 0, !isOff('gro'), `${name}: frames joined for the link`);
      assert.is(sent.tx_uncut, 0, name);
      if (cuts && !isOff('tso'))
        assert.ok(sent.tx_datagrams! > sent.tx_frames! * 2, `${name}: more datagrams than frames`);
    }
  }),
);

testWith(offloads, needs, `toggled ${TOGGLES} times under traffic: nothing is lost or changed`, () =>
  withPair(async (hosts, daemons) => {
    const random = new Xorshift(TOGGLES);
    const port = nextPort();
    const taker = lines(hosts.b, 'take', inner.b, port);
    assert.is(await taker.next(), 'ready');
    const giver = lines(hosts.a, 'give', inner.b, port, BYTES, 1, 4000);
    for (let toggle = 0; toggle < TOGGLES; toggle++) {
      const daemon = toggle % 2 === 0 ? daemons.a : daemons.b;
      const name = offloadNames[random.below(offloadNames.length)]!;
      const value = ['auto', 'on', 'off'][random.below(3)]!;
      try {
        await set(daemon, name, value);
      } catch (error) {
        // On without the checksum that it needs.
        const isRefused = error instanceof OverlayError && error.code === 'offload_refused';
        if (!isRefused || value !== 'on' || !['tso', 'uso'].includes(name)) throw error;
      }
    }
    assert.is(await taker.next(), await giver.next());
    for (const daemon of [daemons.a, daemons.b]) assert.is((await counts(daemon)).tx_uncut, 0);
  }),
);

/** Batches of each worker. */
async function batches(daemon: Daemon): Promise<number[]> {
  const { workers } = await daemon.stats();
  return workers.map(({ counters }) => Number(counters.tx_batches) + Number(counters.rx_batches));
}

testWith(
  offloads,
  needs,
  'a flow settles on one worker on each side, both ways, whatever ports the sockets have',
  async () => {
    // The ports are random: with an unlucky pair a flow went to and fro between two workers for ever.
    for (let round = 0; round < 3; round++) {
      await withPair(
        async (hosts, daemons) => {
          await send(hosts, 'a', round + 1, ['give']);
          const before = { a: await batches(daemons.a), b: await batches(daemons.b) };
          await send(hosts, 'a', round + 10, ['give']);
          for (const side of ['a', 'b'] as const) {
            const after = await batches(daemons[side]);
            const done = after.map((count, worker) => count - before[side][worker]!).sort((a, b) => b - a);
            assert.ok(done[1]! <= done[0]! * 0.1, `round ${round}, ${side}: ${done.join(' and ')} batches`);
          }
        },
        { flags: ['--workers', '2', '--bank', '16', '--ring', '2000'] },
      );
    }
  },
);

offloads.run();
