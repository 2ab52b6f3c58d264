/** The traffic of every scene of interoperability, whoever the peer is and however frames get there. */
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import * as assert from 'uvu/assert';
import type { Traffic } from '../reference/interoperability.js';
import { type Family, type Guest, tcpConnection, tcpEcho, udpSocket } from './guest.js';
import { until } from './hosts.js';
import { askByMdns } from './mdns.js';

/** What the guests' links are to have. */
export const GUEST_MTU = 1400;
const FAMILIES = [4, 6] as const;
/** Of IP and of ICMP or UDP. */
const HEADER_BYTES = { 4: 28, 6: 48 } as const;
const TCP_BYTES = 2 * 1024 * 1024;
/** As many as a socket has room for, however long nobody reads it: none may be lost. */
const DATAGRAMS = 64;
const ANSWERS_MS_MAX = 5000;
const REACHED_MS_MAX = 10_000;

/** Resolves when one reaches the other: what each needs to know of the other first, it finds out meanwhile. */
export function seeEachOther(one: Guest, other: Guest): Promise<void> {
  return until('the guests see each other', REACHED_MS_MAX, () => {
    return one.host.attempt('ping', '-q', '-c', '1', '-W', '0.5', other.inner[4]).status === 0;
  });
}

/** Sizes of payload that fit, up to the very last byte, and then some that guests send in fragments. */
function payloadSizes(family: Family): number[] {
  const most = GUEST_MTU - HEADER_BYTES[family];
  return [0, 1, 500, most - 1, most, most + 1, 4000];
}

async function ping(from: Guest, to: Guest, family: Family): Promise<void> {
  const sizes = payloadSizes(family);
  const flags = ['-q', '-c', '1', '-W', '3', '-s'];
  const codes = await Promise.all(
    sizes.map((size) => from.host.finish('ping', ...flags, `${size}`, to.inner[family])),
  );
  const failed = sizes.filter((_, place) => codes[place] !== 0);
  assert.equal(failed, [], `sizes that ${to.inner[family]} did not answer to ${from.inner[family]}`);
}

/** What the other one sends back is what was sent. */
async function tcp(from: Guest, to: Guest, family: Family): Promise<void> {
  const sent = Buffer.alloc(
    TCP_BYTES,
    Uint8Array.from({ length: 251 }, (_, i) => i),
  );
  const server = tcpEcho(to);
  try {
    const { port } = server.address() as AddressInfo;
    const stream = tcpConnection(from, to.inner[family], family, port);
    stream.setTimeout(ANSWERS_MS_MAX, () =>
      stream.destroy(new Error(`TCP from ${from.inner[family]} stalls`)),
    );
    stream.end(sent);
    assert.ok(sent.equals(await buffer(stream)), `TCP from ${from.inner[family]}`);
  } finally {
    server.close();
  }
}

/** Datagrams of different sizes, each of which is sent back as it was. */
async function udp(from: Guest, to: Guest, family: Family): Promise<void> {
  const most = GUEST_MTU - HEADER_BYTES[family];
  const sizes = Array.from({ length: DATAGRAMS }, (_, i) => Math.floor((i * most) / (DATAGRAMS - 1)));
  const [asker, echo] = [udpSocket(from, family), udpSocket(to, family)];
  try {
    echo.on('message', (message, { port, address }) => echo.send(message, port, address));
    const unanswered = new Map(sizes.map((size) => [size, Buffer.alloc(size, size)]));
    asker.on('message', (message) => {
      if (unanswered.get(message.length)?.equals(message)) unanswered.delete(message.length);
    });
    const { port } = echo.address();
    for (const message of [...unanswered.values()]) asker.send(message, port, to.inner[family]);
    await until(`answers to ${from.inner[family]} by UDP`, ANSWERS_MS_MAX, () => unanswered.size === 0).catch(
      (error: Error) => {
        throw new Error(`${error.message}: sizes ${[...unanswered.keys()].join(' ')}`);
      },
    );
  } finally {
    asker.close();
    echo.close();
  }
}

/** Both ways, and over IPv4 and IPv6 within. */
async function bothWays(
  one: Guest,
  other: Guest,
  send: (from: Guest, to: Guest, family: Family) => Promise<void>,
): Promise<void> {
  for (const family of FAMILIES) {
    await send(one, other, family);
    await send(other, one, family);
  }
}

/** Between the first two; multicast among all of them. */
const traffic: Readonly<Record<Traffic, (guests: readonly Guest[]) => Promise<void>>> = {
  ping: ([one, other]) => bothWays(one!, other!, ping),
  TCP: ([one, other]) => bothWays(one!, other!, tcp),
  UDP: ([one, other]) => bothWays(one!, other!, udp),
  mDNS: async (guests) => {
    for (const family of FAMILIES) await askByMdns(guests, family);
  },
};

/** What the overlays of ours drop meanwhile is nothing. */
export async function withoutDrops(
  guests: readonly Guest[],
  work: () => void | Promise<void>,
): Promise<void> {
  const drops = () =>
    Promise.all(
      guests.map(async ({ daemon }) => {
        if (!daemon) return [];
        const { overlays, muxes } = await daemon.stats();
        return [...Object.values(overlays), ...Object.values(muxes)].map((each) => each.drops);
      }),
    );
  const before = await drops();
  await work();
  assert.equal(await drops(), before, 'nothing is dropped');
}

/** Runs kinds of traffic between guests that reach each other. */
export function interoperate(kinds: readonly Traffic[], guests: readonly Guest[]): Promise<void> {
  return withoutDrops(guests, async () => {
    for (const kind of kinds) await traffic[kind](guests);
  });
}
