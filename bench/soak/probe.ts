/**
 * Loaded into the daemon before its own code (`--import probe.js?socket=PATH`): tells on a socket what the process holds when all
 * garbage is gone. `plant=KIND&per_hour=MIB` makes it leak, which shows that the soak sees it.
 */
import { rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { isMainThread } from 'node:worker_threads';

export interface Held {
  readonly rss: number;
  readonly heapUsed: number;
  /** Outside of the heap, array buffers among them. */
  readonly external: number;
  readonly arrayBuffers: number;
  /** Kinds of what keeps the event loop going, and how many of each. */
  readonly resources: Readonly<Record<string, number>>;
}

const LEAK_MS = 100;
const MIB = 2 ** 20;
const words = new URL(import.meta.url).searchParams;
const leaked: unknown[] = [];

function held(): Held {
  // What a collection frees by finalizers is there for the next.
  globalThis.gc!();
  globalThis.gc!();
  const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
  const resources: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
  return { rss, heapUsed, external, arrayBuffers, resources };
}

/** Bytes are leaked as they would be by a map that never shrinks (`heap`) or by buffers that nobody frees (`buffers`). */
function plant(kind: string, bytesPerHour: number): void {
  let owed = 0;
  const tick = () => {
    owed += (bytesPerHour * LEAK_MS) / 3_600_000;
    const bytes = Math.floor(owed / 8) * 8;
    owed -= bytes;
    if (kind === 'buffers') leaked.push(Buffer.alloc(bytes, 1));
    else leaked.push(Array.from({ length: bytes / 8 }, (_, index) => index + 0.5));
  };
  setInterval(tick, LEAK_MS).unref();
}

const path = words.get('socket');
if (isMainThread && path !== null) {
  rmSync(path, { force: true });
  const server = createServer((connection) => {
    connection.on('error', () => {});
    connection.end(JSON.stringify(held()));
  });
  server.listen(path).unref();
  const kind = words.get('plant');
  if (kind !== null) plant(kind, Number(words.get('per_hour')) * MIB);
}
