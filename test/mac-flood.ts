/**
 * A guest that sends to and from a million addresses, with each lookup: operators are answered, memory is flat, another overlay loses
 * nothing and waits for nobody, and when it is over it is over. MAC_FLOOD_FRAMES=1000000 is the whole million, in a minute each.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HandleClient } from './harness/handle-client.js';
import { type Daemon, Hosts, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const flood = suite('MAC flood');
/** Times are measured always, and asserted where the machine is the test's alone. */
const isNightly = process.env.MAC_FLOOD_FRAMES !== undefined;
const FRAMES = Number(process.env.MAC_FLOOD_FRAMES ?? 80_000);
const FRAMES_PER_SECOND = 1_000_000 / 60;
const SECONDS = FRAMES / FRAMES_PER_SECOND;
const ANSWER_MS_MAX = 500;
const LOOKUP_MS_MAX = 100;
const OVER_MS_MAX = isNightly ? 2000 : 15_000;
/** Of the daemon over the whole time: 16 MiB of held frames, requests, targets, and what the engine has not collected yet. */
const RSS_GROWTH_MAX = 192 * 2 ** 20;
const CALM_INTERVAL_MS = 40;
const CALM_FRAMES = Math.floor((SECONDS * 1000) / (CALM_INTERVAL_MS + 2));
const HARNESS = join(import.meta.dirname, '../../test/harness');
const CALM_GUEST = join(HARNESS, 'calm-guest.py');
/** VTEPs are 192.0.2.<vnetid>: nobody reads what comes of the storm. */
const VNETIDS = { calm: 2, storm: 3 } as const;
const OVERLAYS = ['calm', 'storm'] as const;
const PROGRAMS = 12;

type Overlay = (typeof OVERLAYS)[number];

/** How each lookup is told where everything is. */
const lookups: Record<string, (hosts: Hosts, overlay: Overlay) => Record<string, string | number>> = {
  learn: (_, overlay) => ({ 'learn/port': 4789, 'learn/flood': vtepOf(overlay) }),
  files: (hosts, overlay) => {
    const path = join(hosts.directory, `${overlay}.json`);
    const known = overlay === 'calm' ? CALM_FRAMES : 0;
    const macs = Array.from(
      { length: known },
      (_, number) => `2:c0:0:0:${hex(number >> 8)}:${hex(number & 255)}`,
    );
    const mapping = { ip: vtepOf(overlay), port: 4789 };
    writeFileSync(path, JSON.stringify(Object.fromEntries(macs.map((mac) => [mac, mapping]))));
    return { 'files/config': path };
  },
  direct: (_, overlay) => ({ 'direct/dest_ip': vtepOf(overlay), 'direct/dest_port': 4789 }),
  tells: () => ({}),
  external: () => ({}),
};

const hex = (byte: number) => byte.toString(16);
const vtepOf = (overlay: Overlay) => `192.0.2.${VNETIDS[overlay]}`;

function rssBytes({ child }: Daemon): number {
  const text = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(text)![1]) * 1024;
}

/** A program that answers what is asked on the external handle until the daemon has gone. */
async function answerAll({ socket }: Daemon): Promise<HandleClient> {
  const handle = await HandleClient.open(socket, true);
  const answer = async () => {
    for (;;) {
      const asked = await handle.lookup().catch((error: { code: string }) => {
        if (error.code === 'no_request') return undefined;
        throw error;
      });
      if (!asked) continue;
      const to = `192.0.2.${asked.vnetid}:4789`;
      // One that was given up meanwhile.
      await handle.call('respond', { request: asked.id, to }).catch((error: { code: string }) => {
        if (error.code !== 'request_not_outstanding') throw error;
      });
    }
  };
  for (let program = 0; program < PROGRAMS; program++) answer().catch(() => {});
  return handle;
}

interface Shown {
  requests: { requests: number; held_frames: number } | null;
}

async function isOver(daemon: Daemon): Promise<boolean> {
  const { overlays } = await daemon.client.get<{ overlays: Record<Overlay, Shown> }>('/v1/overlays/storm');
  const { requests } = overlays.storm;
  return !requests || (requests.requests === 0 && requests.held_frames === 0);
}

for (const search of Object.keys(lookups)) {
  testWith(
    flood,
    ['root', '/dev/net/tun', 'gcc', 'python3'],
    `${search}: ${FRAMES} addresses in ${SECONDS.toFixed(0)} s`,
    async () => {
      const hosts = new Hosts();
      try {
        const storm = join(hosts.directory, 'mac-storm');
        execFileSync('gcc', ['-O2', '-o', storm, join(HARNESS, 'mac-storm.c')]);
        hosts.address('b', 'underlay0', `${vtepOf('storm')}/24`);
        const plugin = join(import.meta.dirname, 'plugins/tells.js');
        const daemon = await hosts.daemon('a', { flags: ['--workers', '2', '--plugin', plugin] });
        const handle = search === 'external' ? await answerAll(daemon) : undefined;
        for (const name of OVERLAYS) {
          // A point-to-point overlay looks nothing up.
          const by = search === 'direct' && name === 'calm' ? 'learn' : search;
          const properties = { 'vxlan/listen_ip': '192.0.2.1', ...lookups[by]!(hosts, name) };
          const request = { name, encap: 'vxlan', search: by, vnetid: VNETIDS[name], properties };
          await daemon.client.post('/v1/overlays', request);
          await handle?.call('associate', { overlay: name, mode: 'dynamic' });
          const { netlink } = hosts.a;
          netlink.setLink(netlink.getLink(name).index, { addrGenModeNone: true });
          netlink.setLink(netlink.getLink(name).index, { up: true });
          await until(`${name} is started`, 5000, async () => (await daemon.state(name)) === 'started');
        }
        const waits: number[] = [];
        let said = '';
        const seconds = `${SECONDS + 20}`;
        const far = hosts.b.start('python3', CALM_GUEST, 'receive', vtepOf('calm'), vtepOf('storm'), seconds);
        far.stderr!.resume();
        far.stdout!.setEncoding('utf8').on('data', (text: string) => {
          const lines = (said + text).split('\n');
          said = lines.pop()!;
          for (const line of lines) waits.push(line === 'READY' ? -1 : Number(line));
        });
        await until('the far host listens', 5000, () => waits.length > 0);
        waits.length = 0;
        // Code is compiled and memory touched for the first time.
        assert.is(await hosts.a.finish(storm, 'storm', '5000', '1'), 0);
        await until('the first is over', 10_000, () => isOver(daemon));
        const before = rssBytes(daemon);
        let isStorming = true;
        const calm = hosts.a.finish(
          'python3',
          ...[CALM_GUEST, 'send', 'calm', `${CALM_FRAMES}`, `${CALM_INTERVAL_MS}`],
        );
        const stormed = hosts.a.finish(storm, 'storm', `${FRAMES}`, `${SECONDS}`).then((code) => {
          isStorming = false;
          return code;
        });
        let slowest = 0;
        let most = before;
        while (isStorming) {
          const asked = performance.now();
          await daemon.client.get('/v1/status');
          slowest = Math.max(slowest, performance.now() - asked);
          most = Math.max(most, rssBytes(daemon));
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        assert.is(await stormed, 0);
        await until('it is over', OVER_MS_MAX, () => isOver(daemon));
        assert.is(await calm, 0);
        await until('all of the calm frames have come', 2000, () => waits.length >= CALM_FRAMES).catch(
          () => {},
        );
        const { overlays } = await daemon.stats();
        const ordered = [...waits].sort((one, other) => one - other);
        const at = (part: number) => ordered[Math.floor((ordered.length - 1) * part)]!;
        const drops = Object.entries(overlays.storm!.drops).filter(([, count]) => Number(count) > 0);
        console.log(
          `\n  ${search}: slowest answer ${slowest.toFixed(0)} ms, ${((most - before) / 2 ** 20).toFixed(0)} MiB more, calm ` +
            `${waits.length} of ${CALM_FRAMES}: median ${at(0.5).toFixed(1)}, 95 % ${at(0.95).toFixed(1)}, all ` +
            `${at(1).toFixed(1)} ms; storm ${overlays.storm!.counters.tx_frames} sent, ${JSON.stringify(drops)}`,
        );
        const { counters, link_overflow } = overlays.storm!;
        assert.is(
          Number(counters.tx_read) + Number(link_overflow),
          FRAMES + 5000,
          'every frame was read or overflowed',
        );
        assert.is(waits.length, CALM_FRAMES, 'frames of another overlay that came');
        assert.ok(most - before < RSS_GROWTH_MAX, `${Math.round((most - before) / 2 ** 20)} MiB more`);
        if (!isNightly) return;
        assert.ok(at(0.95) <= LOOKUP_MS_MAX, `lookups of another overlay took ${at(0.95)} ms`);
        assert.ok(slowest < ANSWER_MS_MAX, `the slowest answer took ${slowest.toFixed(0)} ms`);
      } finally {
        await hosts.close();
      }
    },
  );
}

flood.run();
