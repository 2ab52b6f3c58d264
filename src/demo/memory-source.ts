/** Ports in memory for one engine, in place of TAP links. Needs no rights. */
import { OverlayError } from '../errors.js';
import type { HeldNamespace } from '../mux.js';
import type { PortEvent, PortLeft, PortRequest, PortSource } from '../overlay/ports.js';
import type { Port } from '../sys/port.js';
import { MemoryLink } from './memory-link.js';

export class MemorySource implements PortSource {
  readonly #links = new Map<string, MemoryLink>();
  readonly #listeners = new Set<(event: PortEvent) => void>();
  #nextIndex = 1;

  open({ name, queues, mtu }: PortRequest): MemoryLink {
    const link = new MemoryLink(name, this.#nextIndex++, queues, mtu);
    this.#links.set(name, link);
    return link;
  }

  /** The link of a device that was created. */
  link(name: string): MemoryLink {
    const link = this.#links.get(name);
    if (!link) throw new Error(`there is no link ${name}`);
    return link;
  }

  /** Takes a link up, as an administrator would. */
  takeUp(name: string): void {
    const link = this.link(name);
    link.isUp = true;
    const { index, mtu } = link;
    for (const listener of this.#listeners) {
      listener({ kind: 'link', netns: '', index, isUp: true, mtu, mac: '', name, isDeleted: false });
    }
  }

  /** Nothing is left of links in memory. */
  reopen(left: PortLeft): MemoryLink {
    return this.open(left);
  }

  move(): never {
    throw new OverlayError('ENOTSUP', 'memory_port', 'a port in memory is in no network namespace');
  }

  isNamespaceThere(): boolean {
    return true;
  }

  underlayFault(): undefined {
    return undefined; // loopback, which is always there
  }

  hostAddresses(): ReadonlySet<string> {
    return new Set();
  }

  underlayMtu(): undefined {
    return undefined; // as long as people are used to, not that of loopback
  }

  linkIndex(): undefined {
    return undefined; // loopback, which is always there
  }

  ownPrefixes(): readonly string[] {
    return []; // no link by which a frame could come back
  }

  isLeftUp(): boolean {
    return false;
  }

  discard(): void {}

  holdNamespace(): HeldNamespace {
    return { isThere: true, leave: () => {} };
  }

  inNamespace<T>(_netns: string, work: () => T): T {
    return work();
  }

  isUp(port: Port): boolean {
    return (port as MemoryLink).isUp;
  }

  mtu(port: Port): number {
    return (port as MemoryLink).mtu;
  }

  upperLinks(): string[] {
    return [];
  }

  overflows(ports: readonly Port[]): bigint[] {
    return ports.map(() => 0n); // a full queue refuses a frame, so that the sender knows
  }

  watch(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#listeners.clear();
  }
}
