/** How fast is one TCP stream through our daemon, beside the kernel's VXLAN, plain C and the bare wire? */
import { pathToFileURL } from 'node:url';
import { Hosts, until } from '../test/harness/hosts.js';
import { iperf } from '../test/harness/iperf.js';
import { has } from '../test/harness/needs.js';
import { inner, type Peer, peers } from './peers.js';
import { median, spread } from './statistics.js';

const INNER_MTU = 1450; // 1500 less 50 for Ethernet, VXLAN, UDP and IPv4

interface Options {
  /** One short round, for the test suite: shows that it runs, not how fast. */
  readonly smoke: boolean;
  readonly rounds?: number;
  readonly seconds?: number;
}

/** Peers interleaved, round by round, so that a change in the machine's load falls on all of them. */
export async function main(options: Options): Promise<void> {
  const { rounds = options.smoke ? 1 : 5, seconds = options.smoke ? 1 : 3 } = options;
  const missing = ['root', '/dev/net/tun', 'iperf3', 'ping', 'ss'].filter((need) => !has(need));
  if (missing.length > 0) {
    console.log(`throughput: not measured, it needs ${missing.join(', ')}`);
    return;
  }
  const usable = peers.filter(({ needs }) => needs.every(has));
  const rates = new Map<string, number[]>(usable.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const peer of usable) {
      if (process.stderr.isTTY)
        process.stderr.write(`throughput: round ${round + 1} of ${rounds}, ${peer.name}          \r`);
      rates.get(peer.name)!.push(await measure(peer, seconds));
    }
  }
  if (process.stderr.isTTY) process.stderr.write(`${' '.repeat(60)}\r`);
  console.log(`\nTCP, one stream, cubic, MTU 1500 underlay, ${rounds} rounds of ${seconds} s; medians`);
  console.log('peer       Gbit/s   spread   to kernel   to native C');
  for (const { name } of usable) {
    const own = rates.get(name)!;
    const ratio = (to: string) => ratioOf(own, rates.get(to));
    console.log(
      `${name.padEnd(10)} ${median(own).toFixed(2).padStart(6)}   ${spread(own).padStart(6)}   ` +
        `${ratio('kernel').padStart(9)}   ${ratio('native').padStart(11)}`,
    );
  }
}

/** Median of the ratios of the same round: load that both saw falls out. */
function ratioOf(own: readonly number[], anchor: readonly number[] | undefined): string {
  return anchor ? median(own.map((rate, round) => rate / anchor[round]!)).toFixed(2) : '-';
}

/** Gbit/s received. */
async function measure(peer: Peer, seconds: number): Promise<number> {
  const hosts = new Hosts();
  try {
    await peer.up(hosts, INNER_MTU);
    await until(`${peer.name} carries frames`, 10_000, () => {
      return hosts.a.attempt('ping', '-q', '-c', '1', '-W', '1', inner.b).status === 0;
    });
    const flags = ['-C', 'cubic', '-t', `${seconds}`];
    const { bitsPerSecond } = await iperf(hosts, 'a', inner.b, ...flags);
    return bitsPerSecond / 1e9;
  } finally {
    await hosts.close();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main({ smoke: false });
