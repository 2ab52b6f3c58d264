/** What a daemon holds at a moment, as it says itself and as the kernel does. */
import { readdirSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { StatusView } from '../../src/control/status.js';
import type { OverlayView } from '../../src/control/view.js';
import type { Daemon } from '../../test/harness/hosts.js';
import type { Held } from './probe.js';

/** A leak for the daemon to have: `heap` or `buffers`, MiB an hour. */
export interface Planted {
  readonly kind: string;
  readonly perHour: number;
}

export interface Holdings {
  readonly held: Held;
  /** Of the pool of target tables. */
  readonly poolBytes: number;
  readonly descriptors: number;
  readonly threads: number;
  readonly devices: number;
}

/** Flags of Node that put the probe into a daemon. */
export function probeFlags(socket: string, planted?: Planted): readonly string[] {
  const url = pathToFileURL(join(import.meta.dirname, 'probe.js'));
  url.searchParams.set('socket', socket);
  if (planted) {
    url.searchParams.set('plant', planted.kind);
    url.searchParams.set('per_hour', `${planted.perHour}`);
  }
  return ['--expose-gc', '--import', url.href];
}

function askProbe(socket: string): Promise<Held> {
  return new Promise((resolve, reject) => {
    let text = '';
    createConnection(socket)
      .setEncoding('utf8')
      .on('data', (part: string) => {
        text += part;
      })
      .on('error', reject)
      .on('end', () => resolve(JSON.parse(text)));
  });
}

export async function holdings({ child, client }: Daemon, probe: string): Promise<Holdings> {
  const held = await askProbe(probe);
  const { memory, counts } = await client.get<StatusView>('/v1/status');
  return {
    held,
    poolBytes: memory.pool_bytes - memory.pool_free_bytes,
    descriptors: readdirSync(`/proc/${child.pid}/fd`).length,
    threads: readdirSync(`/proc/${child.pid}/task`).length,
    devices: counts.devices,
  };
}

/** Targets, requests and held frames of all its devices. */
export async function openWork({ client }: Daemon): Promise<number> {
  const { overlays } = await client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays');
  let open = 0;
  for (const name of Object.keys(overlays)) {
    const { requests } = (await client.get<{ overlays: Record<string, OverlayView> }>(`/v1/overlays/${name}`))
      .overlays[name]!;
    open += requests === null ? 0 : requests.targets + requests.requests + requests.held_frames;
  }
  return open;
}
