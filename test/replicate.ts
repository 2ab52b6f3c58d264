/** Frames that go to several VTEPs: what becomes of one copy is nothing to the others, and the books balance. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from './harness/hosts.js';
import { MemoryPair, sideIp } from './harness/memory-pair.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import * as frames from './reference/frames.js';
import { GSO_TCPV4, NEEDS_CSUM, recordOf } from './reference/vnet-hdr.js';

const replicate = suite('replication');
/** A VTEP that nobody is at. */
const ELSEWHERE = '127.0.0.9';
/** Two that a socket of a loopback address cannot send to. */
const UNREACHABLE = ['203.0.113.1', '203.0.113.2'] as const;
const ETHERNET_BYTES = 14;
const IP_BYTES = 20;
const TCP_BYTES = 20;
const EVERYBODY = { destination: new Uint8Array(6).fill(255) };

/** Everything goes to the VTEPs, of which `sideIp.b` takes it. */
async function withCopies(to: readonly string[], work: (pair: MemoryPair) => Promise<void>): Promise<void> {
  const plugin = new ScriptedLookup(() => 'drop');
  const other = new ScriptedLookup(() => 'drop');
  const pair = await MemoryPair.start({ workers: 1, plugin: (side) => (side === 'a' ? plugin : other) });
  try {
    plugin.answer = () => ({ replicate: to.map((ip) => ({ ip, port: pair.udpPort })) });
    await work(pair);
  } finally {
    await pair.close();
  }
}

function broadcast(payloadBytes: number): Uint8Array {
  const payload = frames.udp({ ends: frames.ENDS_4, payload: new Uint8Array(payloadBytes) });
  const packet = frames.ipv4({ protocol: 17, payload });
  return frames.ethernet(frames.ETHERTYPE_IPV4, packet, EVERYBODY);
}

/** A super-frame of TCP with so many segments of so many bytes, as a link hands it over. */
function superFrame(segments: number, bytes: number): Uint8Array {
  const payload = frames.tcp({ ends: frames.ENDS_4, payload: new Uint8Array(segments * bytes) });
  const frame = frames.ethernet(frames.ETHERTYPE_IPV4, frames.ipv4({ protocol: 6, payload }), EVERYBODY);
  const csumStart = ETHERNET_BYTES + IP_BYTES;
  const header = {
    flags: NEEDS_CSUM,
    gsoType: GSO_TCPV4,
    headerBytes: csumStart + TCP_BYTES,
    gsoSize: bytes,
    csumStart,
    csumOffset: 16,
  };
  return recordOf(header, frame);
}

/** Waits until so many copies have been sent, and drops are these; then the books must balance and b have its share. */
async function becomes(pair: MemoryPair, sent: bigint, received: bigint, drops: object): Promise<void> {
  const counts = () => pair.a.overlay.deviceStats('ov0').counts;
  const dropped = () => Object.entries(counts().drops).filter(([, count]) => count > 0n);
  await until(`${sent} are sent`, 3000, () => counts().counters.tx_frames === sent);
  assert.equal(Object.fromEntries(dropped()), drops);
  const { tx_read, tx_resent, tx_copies, tx_frames } = counts().counters;
  const lost = dropped().reduce((sum, [, count]) => sum + count, 0n);
  assert.is(tx_read + tx_resent + tx_copies, tx_frames + lost, 'the books');
  const arrived = () => pair.b.overlay.deviceStats('ov0').counts.counters.rx_frames;
  await until(`${received} arrive`, 3000, () => arrived() === received);
}

replicate('a copy that is too big for its path is dropped by name, the others go', async () => {
  await withCopies([sideIp.b, ELSEWHERE], async (pair) => {
    const { port, overlay } = pair.a;
    port.send(0, broadcast(1200));
    await becomes(pair, 2n, 1n, {});
    overlay.engine.destinations.pathMtus.learn('', ELSEWHERE, 700, false);
    port.send(0, broadcast(1200));
    await becomes(pair, 3n, 2n, { tx_path_mtu: 1n });
    port.send(0, broadcast(500));
    await becomes(pair, 5n, 3n, { tx_path_mtu: 1n });
    // Of a super-frame, which counts as one, its segments decide.
    assert.ok(port.sendRaw(0, superFrame(3, 1000)));
    await becomes(pair, 6n, 6n, { tx_path_mtu: 2n });
    assert.ok(port.sendRaw(0, superFrame(3, 500)));
    await becomes(pair, 8n, 9n, { tx_path_mtu: 2n });
    // Nobody is left.
    overlay.engine.destinations.pathMtus.learn('', sideIp.b, 700, false);
    port.send(0, broadcast(1200));
    await until('all are dropped', 3000, () => overlay.deviceStats('ov0').counts.drops.tx_path_mtu === 4n);
    await becomes(pair, 8n, 9n, { tx_path_mtu: 4n });
  });
});

replicate('a copy that cannot be sent costs itself alone', async () => {
  await withCopies([UNREACHABLE[0], sideIp.b, UNREACHABLE[1]], async (pair) => {
    pair.a.port.send(0, broadcast(100));
    await becomes(pair, 1n, 1n, { tx_underlay_error: 2n });
    assert.ok(pair.a.port.sendRaw(0, superFrame(3, 500)));
    await becomes(pair, 2n, 4n, { tx_underlay_error: 4n });
  });
});

replicate.run();
