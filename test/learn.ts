/** The `learn` plugin: what it makes of the addresses it sees, and a device that floods and learns. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sleep } from '../src/sys/clock.js';
import { formatMac } from '../src/target/mac.js';
import {
  type AddressesOptions,
  FLOOD_SECONDS,
  LearnedAddresses,
  SILENT_SECONDS,
} from '../src/varpd/learn/addresses.js';
import { SWEEP_MS } from '../src/varpd/learn.js';
import { until } from './harness/hosts.js';
import { assertRefused, freePort, MemoryOverlay } from './harness/memory-overlay.js';
import { DAY_MS, withSteppedClock } from './harness/wall-clock.js';
import * as frames from './reference/frames.js';
import * as twin from './reference/vxlan.js';

const learn = suite('learn');

// ─── Addresses ──────────────────────────────────────────────────────────────────────────────────────────

const A = '192.0.2.1';
const B = '192.0.2.2';
const MAC = '02:00:00:00:00:01';

/** The addresses with a clock of the test's, and what they have said to the target cache. */
function world(changes: Partial<AddressesOptions> = {}) {
  const seen = new Map<string, number>();
  const table = new Map<string, string>();
  const counts = { learned: 0, moved: 0, unlearned: 0 };
  const time = { now: 1000, ms: 0 };
  const addresses = new LearnedAddresses({
    ageSeconds: 300,
    limit: 4,
    isSticky: false,
    movesMax: MOVES_MAX,
    movesSeconds: MOVES_SECONDS,
    holdSeconds: HOLD_SECONDS,
    nowSeconds: () => time.now,
    nowMs: () => 0,
    lastSeen: (mac) => seen.get(mac) ?? 0,
    isStatic: () => false,
    isSettled: () => true,
    set: (mac, ip) => table.set(mac, ip),
    forget: (mac) => table.delete(mac),
    count: (what) => {
      counts[what]++;
    },
    ...changes,
  });
  return { addresses, seen, table, counts, time };
}

const MOVES_MAX = 5;
const MOVES_SECONDS = 180;
const HOLD_SECONDS = 180;
const macOf = (number: number) => formatMac(0x020000000000 + number);

learn('an address is learned, moves, and is forgotten when nothing is heard of it', () => {
  const { addresses, seen, table, counts, time } = world();
  addresses.observe(MAC, A);
  assert.is(addresses.find(MAC), A);
  time.now += 200;
  addresses.observe(MAC, B);
  assert.equal([...table], [[MAC, B]]);
  assert.equal(counts, { learned: 1, moved: 1, unlearned: 0 });
  time.now += 250;
  seen.set(MAC, time.now);
  time.now += 300;
  addresses.sweep();
  assert.is(addresses.find(MAC), B, 'heard of 300 s ago');
  time.now += 1;
  addresses.sweep();
  assert.equal([addresses.find(MAC), table.size, addresses.size], [undefined, 0, 0]);
});

learn(
  'addresses beyond the limit leave in the order in which they came, and none before it has settled',
  () => {
    const settled = new Set<string>();
    const forgotten: string[] = [];
    const { addresses } = world({
      limit: 1,
      isSettled: (mac) => settled.has(mac),
      forget: (mac) => forgotten.push(mac),
    });
    for (const number of [1, 2, 3, 4]) addresses.flood(macOf(number));
    addresses.sweep();
    assert.equal(forgotten, []);
    for (const number of [2, 1]) settled.add(macOf(number));
    addresses.sweep();
    assert.equal(forgotten, [macOf(1), macOf(2)]);
    settled.add(macOf(3)).add(macOf(4));
    addresses.flood(macOf(5));
    assert.equal(forgotten.slice(2), [macOf(3), macOf(4)]);
  },
);

learn('a sweep looks at the clock after each address, and goes on where it left off', () => {
  const { addresses, time } = world({ limit: 100, nowMs: () => time.ms++ });
  for (let number = 0; number < 20; number++) addresses.observe(macOf(number), A);
  time.now += 301;
  addresses.sweep();
  assert.ok(addresses.size > 10, `${addresses.size} are left after one sweep`);
  for (let sweeps = 0; sweeps < 20; sweeps++) addresses.sweep();
  assert.is(addresses.size, 0);
});

learn('age 0: never forgotten', () => {
  const { addresses, time } = world({ ageSeconds: 0 });
  addresses.observe(MAC, A);
  time.now += 1e9;
  addresses.sweep();
  assert.is(addresses.find(MAC), A);
});

learn('one that was lost from the target cache is put there again', () => {
  const { addresses, table, counts } = world();
  addresses.observe(MAC, A);
  table.clear();
  addresses.observe(MAC, A);
  assert.equal([...table], [[MAC, A]]);
  assert.equal(counts, { learned: 1, moved: 0, unlearned: 0 });
});

learn('the limit: said, and no longer when there is room', () => {
  const { addresses, table, counts, time, seen } = world();
  for (let number = 0; number < 10; number++) addresses.observe(macOf(number), A);
  assert.equal([addresses.size, table.size, counts.unlearned], [4, 4, 6]);
  assert.match(addresses.fault ?? '', /4 addresses are learned, which is learn\/limit/);
  time.now += 400;
  seen.set(macOf(0), time.now);
  addresses.sweep();
  assert.equal([addresses.size, addresses.fault], [1, undefined]);
  addresses.observe(macOf(9), A);
  assert.is(addresses.find(macOf(9)), A);
});

learn('sticky: it stays where it was seen first', () => {
  const { addresses, counts } = world({ isSticky: true });
  addresses.observe(MAC, A);
  addresses.observe(MAC, B);
  assert.equal([addresses.find(MAC), counts], [A, { learned: 1, moved: 0, unlearned: 1 }]);
});

learn('set by hand: left alone', () => {
  const { addresses, table } = world({ isStatic: () => true });
  addresses.observe(MAC, A);
  assert.equal([addresses.find(MAC), table.size], [undefined, 0]);
});

/** Moves an address to and fro until it is held; returns where it is held and where else it is seen. */
function held({ addresses, counts, time }: ReturnType<typeof world>): [held: string, other: string] {
  addresses.observe(MAC, A);
  for (let move = 1; move < MOVES_MAX; move++) {
    time.now += 10;
    addresses.observe(MAC, move % 2 ? B : A);
  }
  assert.equal([counts.moved, addresses.fault], [MOVES_MAX - 1, undefined]);
  const place = addresses.find(MAC)!;
  const other = place === A ? B : A;
  addresses.observe(MAC, other);
  addresses.sweep();
  assert.is(addresses.find(MAC), place, 'where it was');
  assert.match(addresses.fault ?? '', new RegExp(`1 addresses are seen.*${MAC} \\(${place} and ${other}\\)`));
  return [place, other];
}

learn('an address that goes to and fro is held, said, and let go', () => {
  const scene = world();
  const { addresses, seen, time } = scene;
  const [place, other] = held(scene);
  // The old place keeps sending, as in a loop.
  for (let second = 1; second < HOLD_SECONDS; second++) {
    time.now++;
    seen.set(MAC, time.now);
    addresses.observe(MAC, other);
    assert.is(addresses.find(MAC), place);
  }
  time.now += 1;
  addresses.sweep();
  assert.is(addresses.fault, undefined);
  addresses.observe(MAC, other);
  assert.is(addresses.find(MAC), other);
});

learn('a held address follows when its old place is silent', () => {
  const scene = world();
  const { addresses, seen, time } = scene;
  const [place, other] = held(scene);
  time.now += 1;
  seen.set(MAC, time.now);
  time.now += SILENT_SECONDS;
  addresses.observe(MAC, other);
  assert.is(addresses.find(MAC), place, 'it was heard of just now');
  time.now += 1;
  addresses.observe(MAC, other);
  assert.equal([addresses.find(MAC), addresses.fault], [other, undefined]);
});

learn('a held address is let go when an operator removes it', () => {
  const scene = world();
  const { addresses } = scene;
  const [, other] = held(scene);
  addresses.forget(MAC);
  assert.equal([addresses.find(MAC), addresses.fault], [undefined, undefined]);
  addresses.observe(MAC, other);
  assert.is(addresses.find(MAC), other);
  addresses.forget();
  assert.is(addresses.size, 0);
});

learn('moves 0: never held', () => {
  const { addresses, counts } = world({ movesMax: 0 });
  addresses.observe(MAC, A);
  for (let move = 0; move < 100; move++) addresses.observe(MAC, move % 2 ? A : B);
  assert.equal([counts.moved, addresses.fault], [100, undefined]);
});

learn('moves that are far apart are moves', () => {
  const { addresses, counts, time } = world();
  addresses.observe(MAC, A);
  for (let move = 0; move < 20; move++) {
    time.now += MOVES_SECONDS / (MOVES_MAX - 1) + 1;
    addresses.observe(MAC, move % 2 ? A : B);
  }
  assert.equal([counts.moved, addresses.fault], [20, undefined]);
});

learn('floods: looked at again after a while, never more than the limit', () => {
  const { addresses, table, time } = world();
  for (let number = 0; number < 10; number++) {
    table.set(macOf(number), 'all');
    addresses.flood(macOf(number));
  }
  assert.equal([...table.keys()], [6, 7, 8, 9].map(macOf));
  addresses.observe(macOf(9), A);
  time.now += FLOOD_SECONDS + 1;
  addresses.sweep();
  assert.equal([...table], [[macOf(9), A]]);
});

// ─── A device ───────────────────────────────────────────────────────────────────────────────────────────

const VNETID = 77;
const PEERS = ['127.0.0.2', '127.0.0.3'] as const;
const STRANGER = '127.0.0.9';
const OURS = 0x02_00_00_00_00_99;

interface Peer {
  readonly socket: Socket;
  readonly received: Uint8Array[];
}

interface Scene {
  readonly memory: MemoryOverlay;
  readonly peers: ReadonlyMap<string, Peer>;
  readonly port: number;
  /** Sends a frame from the guest; gives the peers that get it. */
  readonly reach: (to: number) => Promise<string[]>;
  /** A frame of a guest behind a VTEP comes in. */
  readonly arrive: (ip: string, from: number) => void;
  readonly counters: () => Readonly<Record<string, number>>;
}

async function withScene(
  properties: Readonly<Record<string, string | number>>,
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const port = await freePort('127.0.0.1');
  const memory = await MemoryOverlay.start();
  const peers = new Map<string, Peer>();
  try {
    for (const ip of [...PEERS, STRANGER]) {
      const socket = createSocket('udp4');
      const received: Uint8Array[] = [];
      socket.on('message', (datagram) => received.push(new Uint8Array(datagram)));
      socket.bind(port, ip);
      await once(socket, 'listening');
      peers.set(ip, { socket, received });
    }
    const { overlay, links } = memory;
    await overlay.createOverlay({
      name: 'ov0',
      encap: 'vxlan',
      search: 'learn',
      vnetid: VNETID,
      properties: {
        'vxlan/listen_ip': '127.0.0.1',
        'vxlan/listen_port': port,
        'learn/flood': PEERS.join('+'),
        'learn/port': port,
        ...properties,
      },
    });
    await memory.up('ov0');
    const frame = (to: number, from: number, payload: number) => {
      const bytes = frames.ethernet(0x88b5, frames.bigEndian(payload, 50));
      bytes.set(frames.bigEndian(to, 6));
      bytes.set(frames.bigEndian(from, 6), 6);
      return bytes;
    };
    let sent = 0;
    const reach = async (to: number) => {
      const bytes = frame(to, OURS, ++sent);
      const datagram = Buffer.from(twin.encap(VNETID, bytes));
      assert.ok(links.get('ov0').port.send(0, bytes));
      const got = () =>
        [...peers].flatMap(([ip, { received }]) =>
          received.filter((each) => datagram.equals(each)).map(() => ip),
        );
      await until('it arrives', 3000, () => got().length > 0);
      await new Promise((resolve) => setTimeout(resolve, 20));
      return got();
    };
    const arrive = (ip: string, from: number) => {
      const { socket } = peers.get(ip)!;
      socket.send(twin.encap(VNETID, frame(OURS, from, ++sent)), port, '127.0.0.1');
    };
    const counters = () => {
      const entries = Object.entries(overlay.deviceStats('ov0').counts.counters);
      return Object.fromEntries(entries.map(([name, count]) => [name, Number(count)]));
    };
    await work({ memory, peers, port, reach, arrive, counters });
  } finally {
    for (const { socket } of peers.values()) socket.close();
    await memory.close();
  }
}

/** Not that of the link in memory, which is never learned. */
const GUEST = 0x02_00_00_00_00_11;

learn('a device floods what is unknown, once to each, and sends to whom it has heard of alone', () =>
  withScene({}, async ({ memory, reach, arrive, counters }) => {
    const { overlay } = memory;
    assert.equal((await reach(GUEST)).sort(), PEERS);
    assert.equal((await reach(0xffffffffffff)).sort(), PEERS, 'broadcast');
    assert.equal((await reach(0x01005e0000fb)).sort(), PEERS, 'multicast');
    assert.is(counters().tx_copies, 3);
    arrive(PEERS[1], GUEST);
    await until('it is learned', 3000, () => counters().rx_learned === 1);
    await until('it is valid', 3000, () => overlay.cacheGet('ov0', GUEST).state === 'valid');
    assert.equal(await reach(GUEST), [PEERS[1]]);
    arrive(PEERS[0], GUEST);
    await until('it has moved', 3000, () => counters().rx_moved === 1);
    assert.equal(await reach(GUEST), [PEERS[0]]);
    assert.is(counters().tx_copies, 3);
    // What is known and where it was costs main nothing.
    for (let round = 0; round < 50; round++) arrive(PEERS[0], GUEST);
    await until('they are in', 3000, () => counters().rx_frames === 52);
    assert.equal([counters().rx_learned, counters().rx_moved, counters().rx_unlearned], [1, 1, 0]);
  }),
);

learn('the wall clock steps: nobody is forgotten for that, and whoever is silent is, in time', () =>
  withScene({ 'learn/age': 1 }, ({ memory, arrive, counters }) =>
    withSteppedClock(async (stepTo) => {
      const { overlay } = memory;
      const isKnown = () => overlay.cacheIterate('ov0', 0, 9).targets.length === 1;
      arrive(PEERS[0], GUEST);
      await until('it is learned', 3000, isKnown);
      stepTo(-DAY_MS);
      await until('it is forgotten', 5000, () => !isKnown());
      await overlay.setprop('ov0', 'learn/age', 300);
      arrive(PEERS[0], GUEST);
      await until('it is learned again', 3000, isKnown);
      stepTo(DAY_MS);
      await sleep(5 * SWEEP_MS);
      assert.equal([isKnown(), counters().rx_learned], [true, 2]);
    }),
  ),
);

learn('group addresses and strangers teach nothing; an operator has the last word', () =>
  withScene({}, async ({ memory, reach, arrive, counters, port }) => {
    const { overlay } = memory;
    arrive(STRANGER, GUEST);
    arrive(PEERS[0], 0x01_00_5e_00_00_01);
    await until('both were there', 3000, () => {
      const { drops, counters } = overlay.deviceStats('ov0').counts;
      return drops.rx_source_unknown === 1n && counters.rx_frames === 1n;
    });
    assert.equal((await reach(GUEST)).sort(), PEERS);
    assert.is(counters().rx_learned, 0);
    overlay.cacheSet('ov0', GUEST, { ip: PEERS[0], port });
    await until('it is valid', 3000, () => overlay.cacheGet('ov0', GUEST).source === 'operator');
    arrive(PEERS[1], GUEST);
    arrive(PEERS[1], GUEST + 1);
    await until('the other one is learned', 3000, () => counters().rx_learned === 1);
    assert.equal(await reach(GUEST), [PEERS[0]]);
  }),
);

learn('more unknown addresses than the limit come to rest: each is looked up once', () =>
  withScene({ 'learn/limit': 1 }, async ({ memory, peers }) => {
    const { overlay, links } = memory;
    const frames = 64;
    for (let number = 0; number < frames; number++) {
      const bytes = new Uint8Array(64).fill(number);
      bytes.set([0x02, 0, 0, 0, 0, number, 0x02, 0, 0, 0, 0, 0x99, 0x88, 0xb5]);
      assert.ok(links.get('ov0').port.send(0, bytes));
    }
    const { received } = peers.get(PEERS[0])!;
    await until('each frame is flooded once', 3000, () => received.length === frames);
    await until('nothing is under way, and the limit holds', 3000, () => {
      const { requests, heldFrames, targets } = overlay.cacheStats('ov0')!;
      return requests === 0 && heldFrames === 0 && targets === 1;
    });
    assert.is(overlay.deviceStats('ov0').counts.counters.tx_deferred, BigInt(frames));
    assert.is(received.length, frames);
  }),
);

learn('an operator lets a held address go by removing its target, or all of them', () =>
  withScene(
    { 'learn/moves': 2, 'learn/moves_seconds': 3600 },
    async ({ memory, reach, arrive, counters }) => {
      const { overlay } = memory;
      const isHeld = () => /seen behind two VTEPs/.test(overlay.status('ov0').message);
      for (const removeTarget of [() => overlay.cacheRemove('ov0', GUEST), () => overlay.cacheFlush('ov0')]) {
        const { rx_learned = 0, rx_moved = 0 } = counters();
        arrive(PEERS[0], GUEST);
        await until('it is learned', 3000, () => counters().rx_learned === rx_learned + 1);
        arrive(PEERS[1], GUEST);
        await until('it moves', 3000, () => counters().rx_moved === rx_moved + 1);
        await sleep(1000); // Workers report an address behind one VTEP once a second.
        arrive(PEERS[0], GUEST);
        await until('it is held', 3000, isHeld);
        removeTarget();
        assert.not(isHeld());
        await sleep(1000);
        arrive(PEERS[0], GUEST);
        await until('it is learned where it is now', 3000, () => counters().rx_learned === rx_learned + 2);
        assert.equal(await reach(GUEST), [PEERS[0]]);
        overlay.cacheRemove('ov0', GUEST);
        await sleep(1000);
      }
    },
  ),
);

learn('a flood of made-up addresses: the table stays within the limit, and the rest is flooded', () =>
  withScene({ 'learn/limit': 100 }, async ({ memory, reach, arrive, counters }) => {
    const { overlay } = memory;
    const frames = 5000;
    for (let number = 0; number < frames; number++) {
      arrive(PEERS[0], 0x02_11_00_00_00_00 + number);
      if (number % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until('it is full, and says so', 3000, () =>
      /100 addresses are learned/.test(overlay.status('ov0').message),
    );
    const { targets } = overlay.cacheIterate('ov0', 0, 500);
    assert.is(targets.length, 100);
    assert.is(counters().rx_learned, 100);
    assert.equal((await reach(0x02_11_00_00_00_00 + frames - 1)).sort(), PEERS);
    assert.equal(await reach(0x02_11_00_00_00_00), [PEERS[0]]);
  }),
);

learn('a group: not on all addresses, not without ports; nothing is left of what failed', async () => {
  const memory = await MemoryOverlay.start();
  try {
    const { overlay } = memory;
    const port = await freePort('127.0.0.1');
    await overlay.createOverlay({
      name: 'ov0',
      encap: 'vxlan',
      search: 'learn',
      vnetid: VNETID,
      properties: {
        'vxlan/listen_ip': '0.0.0.0',
        'vxlan/listen_port': port,
        'learn/port': port,
        'learn/flood': '239.1.1.1',
      },
    });
    await memory.up('ov0');
    assert.match(
      overlay.status('ov0').message,
      /joined on the link that has listen_ip.*set it to one address/,
    );
    assert.equal(overlay.muxStats(), []);
    await overlay.setprop('ov0', 'vxlan/listen_ip', '127.0.0.1');
    await until('it runs', 3000, () => overlay.status('ov0').status === 'ONLINE');
    assert.equal(
      overlay.muxStats().map(({ name }) => name),
      [`127.0.0.1:${port}`, `127.0.0.1:${port} 239.1.1.1:${port}`],
    );
    await assertRefused(
      overlay.setprop('ov0', 'learn/flood', 'ff05::1'),
      'EINVAL',
      'other_family',
      /must be of one family; learn\/flood is as it was/,
    );
    assert.is(overlay.muxStats().length, 2);
  } finally {
    await memory.close();
  }
});

learn('its properties: what is missing, what is wrong', async () => {
  const memory = await MemoryOverlay.start();
  try {
    const { overlay } = memory;
    const request = { name: 'ov0', encap: 'vxlan', search: 'learn', vnetid: VNETID };
    const listen = { 'vxlan/listen_ip': '127.0.0.1' };
    await assertRefused(
      overlay.createOverlay({ ...request, properties: { ...listen, 'learn/flood': '192.0.2.2' } }),
      'EAGAIN',
      'property_missing',
      /learn\/port/,
    );
    for (const [value, what] of [
      ['192.0.2.2+', /VTEPs with \+ between them/],
      ['192.0.2.2:99999', /VTEPs with/],
      ['example.org', /VTEPs with/],
      ['239.1.1.1'.repeat(2), /VTEPs with/],
      [Array.from({ length: 1025 }, () => '192.0.2.2').join('+'), /1025 VTEPs, the most is 1024/],
    ] as const) {
      await assertRefused(
        overlay.createOverlay({
          ...request,
          properties: { ...listen, 'learn/port': 4789, 'learn/flood': value },
        }),
        'EINVAL',
        'bad_property_value',
        what,
      );
    }
  } finally {
    await memory.close();
  }
});

learn.run();
