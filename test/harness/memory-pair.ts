/** Two overlays in one process that reach each other over loopback, with memory ports instead of links. */
import { createSocket } from 'node:dgram';
import { MEMORY_DEFAULT_BYTES } from '../../src/limits.js';
import { silent } from '../../src/log.js';
import type { PortEvent, PortSource } from '../../src/overlay/ports.js';
import { Overlay } from '../../src/overlay.js';
import { MemoryPort } from '../../src/sys/memory-port.js';
import { encap } from '../reference/vxlan.js';

const VNETID = 42;

class OnePort implements PortSource {
  port: MemoryPort | undefined;
  #listener: (event: PortEvent) => void = () => {};

  open(_name: string, queues: number): MemoryPort {
    this.port = new MemoryPort(queues);
    return this.port;
  }

  /** The link comes up. */
  up(): void {
    this.#listener({ kind: 'link', index: 0, isUp: true, mtu: 1400, name: 'ov0', isDeleted: false });
  }

  upperLinks = () => [];
  overflow = () => 0n;
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

export class MemoryPair {
  readonly #socket = createSocket('udp4');

  private constructor(
    readonly a: MemoryHost,
    readonly b: MemoryHost,
    readonly udpPort: number,
  ) {}

  /** @param options.entry another worker module */
  static async start(options: { workers: number; entry?: URL }): Promise<MemoryPair> {
    const udpPort = 20_000 + Math.floor(Math.random() * 20_000);
    const a = await startHost('127.0.0.1', '127.0.0.2', udpPort, options);
    const b = await startHost('127.0.0.2', '127.0.0.1', udpPort, options);
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
  ip: string,
  peer: string,
  udpPort: number,
  options: { workers: number; entry?: URL },
): Promise<MemoryHost> {
  const ports = new OnePort();
  const overlay = await Overlay.start({
    ...options,
    ports,
    memoryBytes: MEMORY_DEFAULT_BYTES,
    cpus: [],
    bank: 4,
    log: silent,
  });
  await overlay.createOverlay({
    name: 'ov0',
    encap: 'vxlan',
    search: 'direct',
    vnetid: VNETID,
    properties: {
      'vxlan/listen_ip': ip,
      'vxlan/listen_port': udpPort,
      'direct/dest_ip': peer,
      'direct/dest_port': udpPort,
    },
  });
  ports.up();
  while (overlay.state('ov0') !== 'started') await new Promise((resolve) => setTimeout(resolve, 1));
  return { overlay, port: ports.port! };
}
