/** Two overlays in one process that reach each other over loopback, with memory ports instead of links. */
import { createSocket } from 'node:dgram';
import { bankFor, MEMORY_DEFAULT_BYTES } from '../../src/limits.js';
import { silent } from '../../src/log.js';
import type { PortEvent, PortLeft, PortRequest, PortSource } from '../../src/overlay/ports.js';
import { Overlay } from '../../src/overlay.js';
import { MemoryPort } from '../../src/sys/memory-port.js';
import type { Port } from '../../src/sys/port.js';
import type { LookupPlugin } from '../../src/varpd/plugin.js';
import { Varpd } from '../../src/varpd/varpd.js';
import { encap } from '../reference/vxlan.js';

const VNETID = 42;

class OnePort implements PortSource {
  port: MemoryPort | undefined;
  #listener: (event: PortEvent) => void = () => {};

  open({ queues }: PortRequest): MemoryPort {
    this.port = new MemoryPort(queues);
    return this.port;
  }

  /** The link comes up. */
  up(): void {
    this.#listener({
      kind: 'link',
      netns: '',
      index: 0,
      isUp: true,
      mtu: 1400,
      mac: '',
      name: 'ov0',
      isDeleted: false,
    });
  }

  isUp = () => true;
  mtu = () => 1400;
  upperLinks = () => [];
  reopen = (left: PortLeft) => this.open(left);
  move = () => {};
  isNamespaceThere = () => true;
  underlayFault = () => undefined;
  hostAddresses = () => new Set<string>();
  underlayMtu = () => undefined;
  linkIndex = () => undefined;
  ownPrefixes = () => [];
  isLeftUp = () => false;
  discard = () => {};
  holdNamespace = () => ({ isThere: true, leave: () => {} });
  inNamespace = <T>(_netns: string, work: () => T) => work();
  overflows = (ports: readonly Port[]) => ports.map(() => 0n);
  close = () => {};
  watch(listener: (event: PortEvent) => void): () => void {
    this.#listener = listener;
    return () => {};
  }
}

export interface MemoryHost {
  readonly overlay: Overlay;
  readonly port: MemoryPort;
}

export interface MemoryPairOptions {
  readonly workers: number;
  /** A thread for each direction. */
  readonly isSplit?: boolean;
  /** Another worker module. */
  readonly entry?: URL;
  /** Lookup plugin of a side, in place of `direct`. */
  readonly plugin?: (side: 'a' | 'b') => LookupPlugin;
  /** Further properties of both devices. */
  readonly properties?: Readonly<Record<string, string | number>>;
}

export const sideIp = { a: '127.0.0.1', b: '127.0.0.2' } as const;

export class MemoryPair {
  readonly #socket = createSocket('udp4');

  private constructor(
    readonly a: MemoryHost,
    readonly b: MemoryHost,
    readonly udpPort: number,
  ) {}

  static async start(options: MemoryPairOptions): Promise<MemoryPair> {
    const udpPort = 20_000 + Math.floor(Math.random() * 20_000);
    const a = await startHost('a', udpPort, options);
    const b = await startHost('b', udpPort, options);
    return new MemoryPair(a, b, udpPort);
  }

  /** A VXLAN datagram with a frame of `bytes`. */
  datagram(vnetid: number, bytes: number): Uint8Array {
    return encap(vnetid, new Uint8Array(bytes).fill(1));
  }

  sendToB(datagram: Uint8Array): void {
    this.#socket.send(datagram, this.udpPort, '127.0.0.2');
  }

  async close(): Promise<void> {
    this.#socket.close();
    await this.a.overlay.close();
    await this.b.overlay.close();
  }
}

async function startHost(
  side: 'a' | 'b',
  udpPort: number,
  { plugin, properties = {}, ...options }: MemoryPairOptions,
): Promise<MemoryHost> {
  const ports = new OnePort();
  const varpd = new Varpd();
  const lookup = plugin?.(side);
  if (lookup) varpd.register(lookup);
  const overlay = await Overlay.start({
    ...options,
    ports,
    varpd,
    memoryBytes: MEMORY_DEFAULT_BYTES,
    cpus: [],
    // As by default: with few source ports a worker of the other side may well get none of them.
    bank: bankFor(options.workers),
    log: silent,
  });
  const peer = sideIp[side === 'a' ? 'b' : 'a'];
  await overlay.createOverlay({
    name: 'ov0',
    encap: 'vxlan',
    search: lookup?.name ?? 'direct',
    vnetid: VNETID,
    properties: {
      'vxlan/listen_ip': sideIp[side],
      'vxlan/listen_port': udpPort,
      ...(lookup ? {} : { 'direct/dest_ip': peer, 'direct/dest_port': udpPort }),
      ...properties,
    },
  });
  ports.up();
  while (overlay.state('ov0') !== 'started') await new Promise((resolve) => setTimeout(resolve, 1));
  return { overlay, port: ports.port! };
}
