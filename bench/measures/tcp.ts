/** TCP streams, and what they cost: iperf3, cubic. */
import { readFileSync } from 'node:fs';
import { until } from '../../test/harness/hosts.js';
import { inner, type Testbed } from '../testbed.js';
import { busySeconds, cpuSeconds } from '../usage.js';
import type { Figure, Measure } from './measure.js';

const ATTEMPTS_MAX = 3;
const LISTEN_MS_MAX = 5000;
/** Port 5201 in state LISTEN, as /proc/net/tcp6 shows it. */
const LISTENING = /:1451 0+:0000 0A/;

interface Received {
  readonly bytes: number;
  readonly bits_per_second: number;
}

/** What the server received. iperf3 now and then ends without a result: it is tried again. */
async function iperf(bed: Testbed, seconds: number, flags: readonly string[]): Promise<Received> {
  let reason = '';
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const server = bed.serve('b', 'iperf3', ['-s', '-1']);
    const ended = new Promise((resolve) => server.once('close', resolve));
    try {
      await until('iperf3 listens', LISTEN_MS_MAX, () =>
        LISTENING.test(readFileSync(`/proc/${server.pid}/net/tcp6`, 'utf8')),
      );
      const common = ['-J', '-c', inner.b, '-C', 'cubic', '-t', `${seconds}`];
      const { stdout, stderr } = await bed.run('a', 'iperf3', [...common, ...flags]);
      const report = JSON.parse(stdout || '{}') as { error?: string; end?: { sum_received?: Received } };
      const received = report.end?.sum_received;
      if (received && received.bytes > 0 && report.error === undefined) return received;
      reason = report.error ?? (stderr || 'no sum in its report');
    } finally {
      // One that was never spoken to would keep the port.
      server.kill('SIGKILL');
      await ended;
    }
  }
  throw new Error(`iperf3 gave no figure: ${reason}`);
}

function stream(name: string, what: string, flags: readonly string[]): Measure {
  return {
    name,
    needs: ['iperf3'],
    figures: [rate(name, what)],
    run: async (bed, seconds) => [(await iperf(bed, seconds, flags)).bits_per_second / 1e9],
  };
}

function rate(name: string, what: string): Figure {
  return { name, unit: 'Gbit/s', what, digits: 2 };
}

/** One stream, and the CPU time of the whole machine and of the peer's own programs for it. */
export const tcp1: Measure = {
  name: 'tcp1',
  needs: ['iperf3'],
  figures: [
    rate('tcp1', 'TCP, one stream from a to b'),
    { name: 'cpu', unit: 's/Gbit', what: 'CPU time of the whole machine during tcp1', digits: 3 },
    { name: 'own cpu', unit: 's/Gbit', what: "CPU time of the peer's own programs during tcp1", digits: 3 },
  ],
  run: async (bed, seconds) => {
    const { pids } = bed;
    const [busy, own] = [busySeconds(), cpuSeconds(pids)];
    const { bytes, bits_per_second } = await iperf(bed, seconds, []);
    const gigabits = (bytes * 8) / 1e9;
    const ofPeer = pids.length > 0 ? (cpuSeconds(pids) - own) / gigabits : undefined;
    return [bits_per_second / 1e9, (busySeconds() - busy) / gigabits, ofPeer];
  },
};

export const tcp4 = stream('tcp4', 'TCP, four streams from a to b', ['-P', '4']);
export const tcpr = stream('tcpr', 'TCP, one stream from b to a', ['-R']);
