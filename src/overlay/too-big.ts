/**
 * Path MTU: takes ICMP off the error queues of the send sockets, and tells guests whose frames are too big for the device or
 * for the way. Nothing is fragmented on the way: whoever sent it has to know.
 *
 *   worker   drops the frame, puts its beginning on the miss ring                          assembly/too-big.ts
 *   main     looks at the error queues first, when only the kernel knows how much fits
 *            answers in the name of the destination, over the inject ring                  too-big-answer.ts
 */
import * as layout from '../../assembly/layout.js';
import type { Miss } from '../datapath/deferred.js';
import type { Engine } from '../datapath/engine.js';
import { ERROR_QUEUE_MS, TOO_BIG_RATE } from '../limits.js';
import type { Muxes } from '../mux.js';
import { every } from '../sys/clock.js';
import { EMSGSIZE } from '../sys/errno.js';
import { ErrorQueue } from '../sys/error-queue.js';
import { Bucket } from '../varpd/remote/bucket.js';
import type { PathProbes } from './path-probes.js';
import type { Entry } from './setprop.js';
import { tooBigAnswer } from './too-big-answer.js';

export interface TooBigContext {
  readonly engine: Engine;
  readonly muxes: Muxes;
  readonly pathProbes: PathProbes;
  entries(): Iterable<Entry>;
}

export class TooBig {
  readonly #queue = new ErrorQueue();
  readonly #stop: () => void;
  /** By device. */
  readonly #buckets = new WeakMap<Entry, Bucket>();

  constructor(readonly context: TooBigContext) {
    this.#stop = every(ERROR_QUEUE_MS, () => {
      this.drain();
      context.engine.destinations.pathMtus.age();
    });
  }

  close(): void {
    this.#stop();
  }

  /** Takes in what has been said of datagrams that were sent. */
  drain(): void {
    const { engine, muxes, pathProbes } = this.context;
    const { pathMtus } = engine.destinations;
    const netnsOf = new Map(
      muxes.list.flatMap(({ underlay, netns }) => underlay.send.map((fd) => [fd, netns] as const)),
    );
    if (netnsOf.size === 0) return;
    for (const fd of this.#queue.withErrors([...netnsOf.keys()])) {
      for (const { ip, errno, info, isLocal } of this.#queue.drain(fd)) {
        if (errno !== EMSGSIZE) continue;
        const netns = netnsOf.get(fd)!;
        if (isLocal || pathProbes.told(netns, ip, info)) pathMtus.learn(netns, ip, info, isLocal);
      }
    }
  }

  /** A worker has dropped a frame as too big: its sender is told, or that is counted. */
  onMiss({ device: row, frame, destination, frameMax }: Miss): void {
    const { engine } = this.context;
    const entry = [...this.context.entries()].find(({ device }) => device.row === row);
    if (!entry) return;
    const { counters, injects } = engine;
    const most = frameMax === 0 ? this.#frameMaxOf(destination) : frameMax;
    const answer = tooBigAnswer(frame.subarray(layout.VNET_HDR_BYTES), (ethernetBytes) =>
      Math.min(most - ethernetBytes, entry.device.mtu),
    );
    if (!answer) return;
    if (!this.#bucketOf(entry).take()) {
      counters.add(row, layout.COUNTER_TX_TOO_BIG_UNTOLD, 1);
      return;
    }
    const whole = new Uint8Array(layout.VNET_HDR_BYTES + answer.length);
    whole.set(answer, layout.VNET_HDR_BYTES);
    const isPushed = injects.push(injects.anyWorker, row, layout.INJECT_RX, whole);
    counters.add(row, isPushed ? layout.COUNTER_TX_TOO_BIG_TOLD : layout.COUNTER_TX_TOO_BIG_UNTOLD, 1);
    injects.wake();
  }

  /** The kernel has refused it, and has said why on an error queue. 0 where it has not. */
  #frameMaxOf(destination: number): number {
    const { pathMtus } = this.context.engine.destinations;
    this.drain();
    return pathMtus.frameMax(destination) ?? 0;
  }

  #bucketOf(entry: Entry): Bucket {
    const known = this.#buckets.get(entry);
    if (known) return known;
    const bucket = new Bucket(TOO_BIG_RATE);
    this.#buckets.set(entry, bucket);
    return bucket;
  }
}
