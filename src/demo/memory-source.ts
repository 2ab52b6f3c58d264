/** Ports in memory for one engine, in place of TAP links. Needs no rights. */
import type { PortEvent, PortSource } from '../overlay/ports.js';
import type { Port } from '../sys/port.js';
import { MemoryLink } from './memory-link.js';

export class MemorySource implements PortSource {
  readonly #links = new Map<string, MemoryLink>();
  readonly #listeners = new Set<(event: PortEvent) => void>();
  #nextIndex = 1;

  open(name: string, queues: number, mtu: number): MemoryLink {
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
      listener({ kind: 'link', index, isUp: true, mtu, name, isDeleted: false });
    }
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

  overflow(): bigint {
    return 0n; // a full queue refuses a frame, so that the sender knows
  }

  watch(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#listeners.clear();
  }
}
