/** TAP links: the surface, the errors, queues, persistence; and the flows of one reach every worker of the other side. */
import { execFileSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { closeFd } from '../src/sys/fd.js';
import { Netlink } from '../src/sys/netlink/index.js';
import { createNamespace, inNamespace } from '../src/sys/netns.js';
import { Tap } from '../src/sys/tap.js';
import { until } from './harness/hosts.js';
import { MemoryPair } from './harness/memory-pair.js';
import { testWith } from './harness/needs.js';
import * as frames from './reference/frames.js';

const tap = suite('TAP');
const needs = ['root', '/dev/net/tun'];

/** Runs `work` in a namespace, then what it returns, which may take its time, with the same request socket. */
async function inNewNamespace(work: (netlink: Netlink) => void | (() => Promise<void>)): Promise<void> {
  const namespace = createNamespace();
  try {
    const netlink = inNamespace(namespace, () => new Netlink());
    try {
      await inNamespace(namespace, () => work(netlink))?.();
    } finally {
      netlink.close();
    }
  } finally {
    closeFd(namespace);
  }
}

function refusal(work: () => void): OverlayError {
  try {
    work();
  } catch (error) {
    if (error instanceof OverlayError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

testWith(
  tap,
  [...needs, 'ethtool'],
  'its speed: that of whatever carries it, so it says that it does not know',
  () =>
    inNewNamespace((netlink) => {
      const link = new Tap({ name: 'tap0', queues: 2, netlink });
      link.isUp = true;
      link.setCarrier(true);
      assert.match(execFileSync('ethtool', ['tap0'], { encoding: 'utf8' }), /Speed: Unknown!/);
      return () => link.release();
    }),
);

testWith(tap, needs, 'name, mac, mtu, isUp, ipv4, ipv6, release', () =>
  inNewNamespace((netlink) => {
    const link = new Tap({ name: 'tap0', queues: 4, netlink });
    assert.is(link.name, 'tap0');
    assert.is(link.fds.length, 4);
    assert.match(link.mac, /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
    link.mac = '02:08:20:01:02:03';
    assert.is(link.mac, '02:08:20:01:02:03');
    link.mtu = 1300;
    assert.is(link.mtu, 1300);
    assert.is(link.isUp, false);
    link.isUp = true;
    assert.is(link.isUp, true);
    assert.is(netlink.getLink('tap0').hasCarrier, false, 'born without carrier');
    link.setCarrier(true);
    assert.is(netlink.getLink('tap0').hasCarrier, true);
    assert.is(link.ipv4, undefined);
    link.ipv4 = '198.51.100.1/24';
    assert.is(link.ipv4, '198.51.100.1/24');
    link.ipv6 = '2001:db8::7/64';
    assert.ok(link.ipv6?.includes(':'), `${link.ipv6}`);
    return async () => {
      await Promise.all([link.release(), link.release()]);
      assert.throws(() => netlink.getLink('tap0'));
    };
  }),
);

testWith(tap, needs, 'an existing link is never taken over', () =>
  inNewNamespace((netlink) => {
    const first = new Tap({ name: 'tap0', queues: 2, netlink });
    const second = refusal(() => new Tap({ name: 'tap0', queues: 2, netlink }));
    assert.equal([second.errno, second.code], ['EEXIST', 'link_exists']);
    netlink.createBridge('bridge0');
    assert.is(refusal(() => new Tap({ name: 'bridge0', queues: 1, netlink })).code, 'link_exists');
    first.release();
  }),
);

testWith(tap, needs, 'a persistent link stays when its descriptors close', () =>
  inNewNamespace((netlink) => {
    const link = new Tap({ name: 'tap0', queues: 1, netlink });
    link.keep(true);
    return async () => {
      await link.release();
      assert.is(netlink.getLink('tap0').name, 'tap0');
      netlink.deleteLink(netlink.getLink('tap0').index);
    };
  }),
);

testWith(tap, needs, 'a missing tun node is named', () =>
  inNewNamespace((netlink) => {
    const missing = refusal(
      () => new Tap({ name: 'tap0', queues: 1, netlink, node: '/dev/net/no-such-node' }),
    );
    assert.equal([missing.errno, missing.code], ['ENODEV', 'no_tun_device']);
    assert.match(missing.message, /no-such-node is missing/);
  }),
);

tap('1,000 flows reach all workers of the other side, and each flow keeps its order', async () => {
  const workers = 4;
  const pair = await MemoryPair.start({ workers });
  try {
    const flows = 1000;
    const perFlow = 20;
    const next = new Uint32Array(flows);
    let received = 0;
    let reordered = 0;
    const take = () => {
      for (let frame = pair.b.port.receive(); frame; frame = pair.b.port.receive()) {
        const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
        const flow = view.getUint32(42);
        if (view.getUint32(46) !== next[flow]!) reordered++;
        next[flow] = view.getUint32(46) + 1;
        received++;
      }
    };
    for (let sequence = 0; sequence < perFlow; sequence++) {
      for (let flow = 0; flow < flows; flow++) {
        const payload = new Uint8Array(64);
        new DataView(payload.buffer).setUint32(0, flow);
        new DataView(payload.buffer).setUint32(4, sequence);
        const datagram = frames.udp({ ends: frames.ENDS_4, sourcePort: 1024 + flow, payload });
        const frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: datagram }));
        // The kernel keeps a flow on one queue; so do we.
        while (!pair.a.port.send(flow % workers, frame)) take();
      }
      take();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await until('all have arrived', 5000, () => {
      take();
      return received === flows * perFlow;
    });
    assert.is(reordered, 0);
    const stats = pair.b.overlay.workerStats();
    const batches = stats.map(({ counts }) => Number(counts.counters.rx_batches));
    assert.ok(
      batches.every((count) => count > 0),
      `batches by worker: ${batches}; restarts: ${stats.map(({ restarts }) => restarts)}`,
    );
  } finally {
    await pair.close();
  }
});

tap.run();
