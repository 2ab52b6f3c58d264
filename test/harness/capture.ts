/** What tcpdump sees on a link of a host. */
import type { ChildProcess } from 'node:child_process';
import { type Host, until } from './hosts.js';

/** Ends tcpdump and gives what it saw, a line a packet; `seen` is what it has said so far. */
type Capture = (() => Promise<string>) & { readonly seen: () => string };

/** Starts tcpdump. */
export async function capture(
  host: Host,
  filter: string,
  { link = 'underlay0', flags = [] }: { link?: string; flags?: readonly string[] } = {},
): Promise<Capture> {
  const child: ChildProcess = host.start('tcpdump', '-nlU', '--immediate-mode', ...flags, '-i', link, filter);
  let seen = '';
  let told = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    seen += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    told += text;
  });
  await until('tcpdump listens', 5000, () => told.includes('listening on'));
  const end = async () => {
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGINT');
    await ended;
    return seen;
  };
  return Object.assign(end, { seen: () => seen });
}
