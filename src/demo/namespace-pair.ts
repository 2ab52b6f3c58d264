/** Two network namespaces joined by a veth pair, with a daemon in each: all as on two real machines. */
import { join } from 'node:path';
import { inNamespace } from '../sys/netns.js';
import type { Cleanup } from './cleanup.js';
import { overlayadmLine } from './cli.js';
import { Daemon } from './daemon.js';
import { makeDirectory } from './directory.js';
import { IcmpSocket } from './icmp-socket.js';
import { NamespaceHost, UNDERLAY } from './namespace-host.js';
import type { Pair } from './pair.js';
import { picture } from './picture.js';
import { commandLine } from './programs.js';
import { print, step, title } from './screen.js';
import { transferTcp } from './tcp.js';

const PORT = 4789;

/**
 * Makes namespaces, links and daemons, telling of each.
 *
 * @param isNested in a user namespace of the demo's own
 */
export async function startNamespacePair(cleanup: Cleanup, isNested: boolean): Promise<Pair> {
  const directory = makeDirectory(cleanup);
  const host = (name: 'a' | 'b', underlayIp: string, innerIp: string) =>
    new NamespaceHost(cleanup, { name, socket: join(directory, `${name}.sock`), underlayIp, innerIp });
  const a = host('a', '192.0.2.1', '10.99.0.1');
  const b = host('b', '192.0.2.2', '10.99.0.2');
  const hosts = [a, b] as const;

  title('Two hosts');
  print(...picture({ a, b, port: PORT }, 'a network namespace', 'overlayd', UNDERLAY, 'veth pair'), '');
  print('Below each step is the command that does it, or that would do the same.');

  step(
    'Two network namespaces',
    'ip netns add a',
    'ip netns add b',
    'ip -n a link set lo up',
    'ip -n b link set lo up',
  );
  step('A veth pair between them, the underlay', ...a.joinTo(b));

  const daemons = hosts.map(({ name, socket, namespace }) => {
    step(`overlayd in host ${name}`, Daemon.line(socket, directory, name));
    return new Daemon(cleanup, name, socket, directory, namespace);
  });
  await Promise.all(daemons.map((daemon) => daemon.ready()));

  const icmp = cleanup.hold(
    () => inNamespace(a.namespace, () => new IcmpSocket()),
    (socket) => socket.close(),
  );
  const lost = Promise.race(daemons.map((daemon) => daemon.lost));
  // It may come when nobody is waiting for traffic.
  lost.catch(() => {});
  return {
    a,
    b,
    port: PORT,
    carries: 'TCP',
    megabytesDefault: 300,
    lost,
    echo: (payloadBytes, msMax) => icmp.echo(b.innerIp, payloadBytes, msMax),
    transfer: (bytes, onProgress) =>
      transferTcp(cleanup, {
        fromNamespace: a.namespace,
        toNamespace: b.namespace,
        toIp: b.innerIp,
        bytes,
        onProgress,
      }),
    commands: () => {
      const [daemonA, daemonB] = daemons as [Daemon, Daemon];
      const inA = (...words: readonly string[]) => commandLine(...a.enterWords(daemonA, isNested, ...words));
      const inB = (...words: readonly string[]) => commandLine(...b.enterWords(daemonB, isNested, ...words));
      return [
        ['ping host b from host a', inA('ping', b.innerIp)],
        ['a shell in host a', inA('bash')],
        ['a TCP server in host b', inB('iperf3', '-s')],
        ['... and a client in host a', inA('iperf3', '-c', b.innerIp)],
        ['what goes over the underlay', inA('tcpdump', '-ni', UNDERLAY, 'udp', 'port', `${PORT}`)],
        ['counters and drops of host a', overlayadmLine(a.socket, 'show-stats')],
        ['the overlay of host b', overlayadmLine(b.socket, 'show-overlay')],
      ];
    },
  };
}
