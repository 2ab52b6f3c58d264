/** The books of an end-to-end test, balanced against the kernel's own counters. */
import * as assert from 'uvu/assert';
import type { StatsView } from '../../src/control/view.js';
import type { LinkStats } from '../../src/sys/netlink/index.js';
import type { Daemon, Host } from './hosts.js';
import { until } from './hosts.js';

const sum = (counts: Readonly<Record<string, string | number | undefined>>, prefix: string): number =>
  Object.entries(counts).reduce(
    (total, [name, count]) => total + (name.startsWith(prefix) ? Number(count) : 0),
    0,
  );

/**
 * Asserts, when traffic has stopped, for one device alone on its mux:
 * - frames the kernel gave to the link = frames we read = sent + named drops;
 * - records we wrote = frames the kernel took from the link, of which those that were joined are several of ours;
 * - datagrams read = delivered + named drops of mux and device.
 */
export async function assertBooks(host: Host, daemon: Daemon, link: string, mux: string): Promise<void> {
  const { stats, kernel } = await readAtRest(host, daemon, link);
  const device = stats.overlays[link]!;
  const underlay = stats.muxes[mux]!;
  const { counters, drops } = device;
  assert.is(
    Number(counters.tx_read),
    Number(kernel.txPackets),
    'frames read = frames the kernel sent to the link',
  );
  assert.is(
    Number(counters.tx_read),
    Number(counters.tx_frames) + sum(drops, 'tx_'),
    'frames read = sent + dropped by name',
  );
  assert.is(Number(counters.rx_writes), Number(kernel.rxPackets), 'records written = frames the kernel took');
  assert.is(
    Number(underlay.counters.rx_read),
    Number(counters.rx_frames) + sum(drops, 'rx_') + sum(underlay.drops, 'rx_'),
    'datagrams read = delivered + dropped by name',
  );
  assert.is(Number(device.link_overflow), Number(kernel.txDropped), 'link overflow = the kernel’s own drops');
}

/** Our counts and the kernel's of the same moment: read again when a frame passed in between. */
async function readAtRest(
  host: Host,
  daemon: Daemon,
  link: string,
): Promise<{ stats: StatsView; kernel: LinkStats }> {
  let result: { stats: StatsView; kernel: LinkStats } | undefined;
  await until('the counters rest', 5000, async () => {
    const before = await daemon.stats();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const kernel = host.linkStats(link);
    const stats = await daemon.stats();
    result = { stats, kernel };
    const traffic = ({ overlays, muxes }: StatsView) => JSON.stringify([overlays, muxes]);
    return traffic(before) === traffic(stats);
  });
  return result!;
}
