/** One iperf3 run between two hosts. */
import { type Hosts, type Side, until } from './hosts.js';

/** What the server received; UDP runs have the losses too. */
export interface IperfResult {
  readonly bytes: number;
  readonly bitsPerSecond: number;
  readonly lostPackets: number | undefined;
  readonly packets: number | undefined;
}

interface Report {
  readonly error?: string;
  readonly end?: {
    readonly sum_received?: { bytes: number; bits_per_second: number };
    readonly sum?: { bytes: number; bits_per_second: number; lost_packets?: number; packets?: number };
  };
}

const ATTEMPTS_MAX = 3;

/**
 * Runs a client on host `from` against a server on the other one. iperf3 now and then ends without a result (its
 * control connection is set up before the path is, or it misses its own peer's end); that is said and tried again.
 * @param target address of the other host
 * @param flags further arguments of the client, such as '-t', '1'
 */
export async function iperf(
  hosts: Pick<Hosts, Side>,
  from: Side,
  target: string,
  ...flags: string[]
): Promise<IperfResult> {
  const to = from === 'a' ? 'b' : 'a';
  let reason = '';
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const server = hosts[to].start('iperf3', '-s', '-1');
    server.stdout?.resume();
    server.stderr?.resume();
    try {
      await until('iperf3 listens', 5000, () =>
        hosts[to].attempt('ss', '-Hltn', 'sport = 5201').output.includes('5201'),
      );
      const { output, status } = hosts[from].attempt('iperf3', '-J', '-c', target, ...flags);
      const result = resultOf(output);
      if (typeof result !== 'string') return result;
      reason = `exit ${status}: ${result}`;
      console.log(`iperf3 from ${from} to ${target} gave no figure (${reason})`);
    } finally {
      // One that was never spoken to would keep the port.
      server.kill('SIGKILL');
      await until('iperf3 has ended', 5000, () => server.exitCode !== null || server.signalCode !== null);
    }
  }
  throw new Error(`iperf3 from ${from} to ${target} gave no figure: ${reason}`);
}

function resultOf(output: string): IperfResult | string {
  let report: Report;
  try {
    report = JSON.parse(output) as Report;
  } catch {
    return `not JSON: ${output.slice(0, 200)}`;
  }
  const { sum, sum_received: received = sum } = report.end ?? {};
  if (report.error !== undefined || !received) return report.error ?? 'no sum in its report';
  return {
    bytes: received.bytes,
    bitsPerSecond: received.bits_per_second,
    lostPackets: sum?.lost_packets,
    packets: sum?.packets,
  };
}
