/** Offloads as an operator meets them: settings, what the kernel refuses, and stepping down and back. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { type Mux, Muxes } from '../src/mux.js';
import { offloadNames } from '../src/offload.js';
import { EINVAL, EIO } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { Netlink } from '../src/sys/netlink/index.js';
import { createNamespace, inNamespace } from '../src/sys/netns.js';
import { Tap } from '../src/sys/tap.js';
import { probeUdpOffloads, type UdpOffloadCalls } from '../src/sys/udp-offload.js';
import { until } from './harness/hosts.js';
import { faultOf, withMemory } from './harness/lifecycle.js';
import { assertRefused, freePort, type MemoryOverlay, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const offload = suite('offload states');

/** The bits of the device's row. */
function flagsOf({ overlay }: MemoryOverlay): number {
  const row = overlay.engine.views.u32[(layout.DEVICES_OFFSET + layout.DEVICE_FLAGS) / 4]!;
  return (
    row & (layout.DEVICE_FLAG_UDP_SEGMENT | layout.DEVICE_FLAG_COALESCE | layout.DEVICE_FLAG_COALESCE_UDP)
  );
}

const SOCKETS = { udp_segment: true, udp_gro: true };

offload(
  'auto is the default; off and auto are in force at once; a port without a kernel behind it has no others',
  async () => {
    await withMemory(
      async (memory) => {
        const { overlay } = memory;
        await overlay.createOverlay(request('ov0', 1, await freePort('0.0.0.0')));
        await memory.up('ov0');
        for (const name of offloadNames) assert.is(overlay.property('ov0', name).value, 'auto');
        const refused = { checksum: 'refused', tso: 'refused', uso: 'refused', gro: 'refused' };
        assert.equal(overlay.offloads('ov0'), { ...refused, udp_segment: 'used', udp_gro: 'used' });
        assert.is(flagsOf(memory), layout.DEVICE_FLAG_UDP_SEGMENT);
        await overlay.setprop('ov0', 'udp_segment', 'off');
        assert.is(overlay.offloads('ov0').udp_segment, 'off');
        assert.is(flagsOf(memory), 0);
        await overlay.setprop('ov0', 'udp_segment', 'on');
        assert.is(flagsOf(memory), layout.DEVICE_FLAG_UDP_SEGMENT);
        await assertRefused(overlay.setprop('ov0', 'udp_segment', 'perhaps'), 'EINVAL', 'bad_property_value');
      },
      { sockets: SOCKETS },
    );
  },
);

offload('on is refused where the kernel does not have it, and the old setting stays', async () => {
  await withMemory(
    async (memory) => {
      const { overlay } = memory;
      await overlay.createOverlay(request('ov0', 1, await freePort('0.0.0.0')));
      await memory.up('ov0');
      await overlay.setprop('ov0', 'udp_gro', 'off');
      for (const name of offloadNames) {
        const before = overlay.property('ov0', name).value;
        await assertRefused(overlay.setprop('ov0', name, 'on'), 'ENOTSUP', 'offload_refused');
        assert.is(overlay.property('ov0', name).value, before, name);
      }
      assert.is(flagsOf(memory), 0);
    },
    { sockets: { udp_segment: false, udp_gro: false } },
  );
});

offload('the kernel will not cut: it steps down, says so, and is tried again', async () => {
  await withMemory(
    async (memory) => {
      const { overlay } = memory;
      await overlay.createOverlay(request('ov0', 1, await freePort('0.0.0.0')));
      await memory.up('ov0');
      // The first device of an overlay.
      const row = 0;
      overlay.reports.onRefused(row, 'udp_segment', EIO);
      assert.is(overlay.offloads('ov0').udp_segment, 'down');
      assert.is(flagsOf(memory), 0);
      assert.match(
        faultOf(memory, 'ov0'),
        /udp_segment: the kernel would not cut a message; datagrams go one by one \(EIO\)/,
      );
      overlay.reports.onRefused(row, 'udp_segment', EIO);
      await until('it is tried again', 2000, () => overlay.offloads('ov0').udp_segment === 'used');
      assert.is(faultOf(memory, 'ov0'), '');
      assert.is(flagsOf(memory), layout.DEVICE_FLAG_UDP_SEGMENT);
      overlay.reports.onRefused(row, 'udp_segment', EIO);
      await overlay.setprop('ov0', 'udp_segment', 'auto');
      assert.is(overlay.offloads('ov0').udp_segment, 'used', "an operator's word counts at once");
      assert.is(faultOf(memory, 'ov0'), '');
      await overlay.setprop('ov0', 'udp_segment', 'on');
      overlay.reports.onRefused(row, 'udp_segment', EIO);
      assert.is(overlay.offloads('ov0').udp_segment, 'used', 'on insists');
      overlay.reports.onRefused(layout.DEVICES_MAX - 1, 'udp_segment', EIO);
    },
    { sockets: SOCKETS, offloadRetryMs: 50 },
  );
});

offload(
  'the link does not take a super-frame: joining stops, also where it is on, and is tried again',
  async () => {
    await withMemory(
      async (memory) => {
        const { overlay, links } = memory;
        const open = links.open.bind(links);
        links.open = (asked) => Object.assign(open(asked), { takes: 'tcp and udp' as const });
        await overlay.createOverlay(request('ov0', 1, await freePort('0.0.0.0')));
        await memory.up('ov0');
        const joining = layout.DEVICE_FLAG_COALESCE | layout.DEVICE_FLAG_COALESCE_UDP;
        for (const setting of ['auto', 'on']) {
          await overlay.setprop('ov0', 'gro', setting);
          assert.is(flagsOf(memory) & joining, joining);
          overlay.reports.onRefused(0, 'gro', EINVAL);
          overlay.reports.onRefused(0, 'udp_segment', EIO);
          assert.equal([overlay.offloads('ov0').gro, overlay.offloads('ov0').udp_segment], ['down', 'down']);
          assert.is(flagsOf(memory), 0);
          assert.match(faultOf(memory, 'ov0'), /gro: .*super-frame.*\(EINVAL\).*udp_segment: .*\(EIO\)/);
          await until(
            'both are tried again',
            2000,
            () => flagsOf(memory) === (joining | layout.DEVICE_FLAG_UDP_SEGMENT),
          );
          assert.is(faultOf(memory, 'ov0'), '');
          await overlay.setprop('ov0', 'udp_segment', 'auto');
        }
        overlay.reports.onRefused(0, 'gro', EINVAL);
        await overlay.delete('ov0', { force: true });
      },
      { sockets: SOCKETS, offloadRetryMs: 50 },
    );
  },
);

offload('a kernel without UDP_GRO is not asked to turn it off', () => {
  const engine = undefined as never;
  const mux = { unjoined: new Set<string>(), underlay: { receive: [-1] }, encap: {} } as unknown as Mux;
  new Muxes(engine, 1, engine, false).joinDatagrams(mux, 'ov0', false);
  assert.throws(() => new Muxes(engine, 1, engine, true).joinDatagrams(mux, 'ov0', false), /EBADF/);
});

/** The kernel's calls, of which one fails or lies. */
function calls(changes: Partial<UdpOffloadCalls>): UdpOffloadCalls {
  const { setsockopt, sendto, recv } = libc;
  return { setsockopt, sendto, recv, ...changes };
}

const UDP_SEGMENT = 103;
const UDP_GRO = 104;

offload(
  'what UDP sockets have: tried over loopback, and found out when it is refused or does not work',
  () => {
    assert.equal(probeUdpOffloads(), { udp_segment: true, udp_gro: true }, 'this kernel');
    const refusing = (option: number) =>
      calls({
        setsockopt: (fd, level, name, value, bytes) =>
          name === option ? -1 : libc.setsockopt(fd, level, name, value, bytes),
      });
    assert.equal(probeUdpOffloads(refusing(UDP_SEGMENT)), { udp_segment: false, udp_gro: true });
    assert.equal(probeUdpOffloads(refusing(UDP_GRO)), { udp_segment: true, udp_gro: false });
    // Says yes and does nothing.
    const lying = (option: number) =>
      calls({
        setsockopt: (fd, level, name, value, bytes) =>
          name === option ? 0 : libc.setsockopt(fd, level, name, value, bytes),
      });
    assert.equal(probeUdpOffloads(lying(UDP_SEGMENT)), { udp_segment: false, udp_gro: true });
    assert.equal(probeUdpOffloads(lying(UDP_GRO)), { udp_segment: true, udp_gro: false });
    // Loopback is down: the kernel's word counts.
    assert.equal(probeUdpOffloads(calls({ sendto: () => -1 })), { udp_segment: true, udp_gro: true });
    let sends = 0;
    const failing = calls({ sendto: (...given) => (sends++ === 0 ? libc.sendto(...given) : -1) });
    assert.equal(
      probeUdpOffloads(failing).udp_segment,
      false,
      'the first message that is to be cut is refused',
    );
  },
);

testWith(
  offload,
  ['root', '/dev/net/tun'],
  'what the link may leave to us: as many bits as the kernel takes',
  () => {
    const namespace = createNamespace();
    const netlink = inNamespace(namespace, () => new Netlink());
    const ALL = { checksum: true, tso: true, uso: true };
    const NONE = { checksum: false, tso: false, uso: false };
    let links = 0;
    const offered = (refused: number, wanted = ALL) =>
      inNamespace(namespace, () => {
        const bits: number[] = [];
        const ioctlValue = (fd: number, request: number, value: number) => {
          bits.push(value);
          return (value & refused) !== 0 ? -1 : libc.ioctlValue(fd, request, value);
        };
        const tap = new Tap({ name: `ov${links++}`, queues: 1, netlink, calls: { ioctlValue } });
        tap.offer(wanted);
        const { offloads } = tap;
        void tap.release();
        return offloads;
      });
    try {
      for (const [refused, expected] of [
        [0, ALL],
        [0x60, { ...ALL, uso: false }],
        [0x0e, { ...ALL, tso: false }],
        [0x01, NONE],
      ] as const) {
        assert.equal(offered(refused), expected, `without ${refused}`);
      }
      assert.equal(offered(0, NONE), NONE);
      assert.equal(offered(0, { ...ALL, tso: false }), { ...ALL, tso: false });
    } finally {
      netlink.close();
      closeFd(namespace);
    }
  },
);

offload.run();
