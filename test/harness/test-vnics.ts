/** VNICs on memory ports: links on top that a test keeps, and what was asked of them. */
import type { OverlayError } from '../../src/errors.js';
import type { UpperLink, VnicRequest, VnicSource } from '../../src/overlay/ports.js';
import type { Port } from '../../src/sys/port.js';
import type { MemoryOverlay, TestLink } from './memory-overlay.js';

export class TestVnics implements VnicSource {
  /** A test may add some, which are then on every port. */
  readonly links: UpperLink[] = [];
  readonly calls: string[] = [];
  readonly #ports = new WeakMap<UpperLink, Port>();
  /** What taking a link up throws. */
  takeUpFailure: OverlayError | undefined;
  above: () => string[] = () => [];

  list(ports: readonly Port[]): UpperLink[][] {
    return ports.map((port) => this.links.filter((link) => (this.#ports.get(link) ?? port) === port));
  }

  create(port: Port, { name, mac, alias, netns = '' }: VnicRequest): UpperLink {
    this.calls.push(`create ${name}`);
    const place = { netns, namespaceId: netns === '' ? undefined : 1 };
    const link = { name, mac, alias, index: 7, kind: 'macvlan', mtu: 1400, isUp: false, ...place };
    this.links.push(link);
    this.#ports.set(link, port);
    return link;
  }

  delete(_port: Port, { name }: UpperLink): void {
    this.calls.push(`delete ${name}`);
    this.links.splice(
      this.links.findIndex((link) => link.name === name),
      1,
    );
  }

  takeUp(port: Port): void {
    this.calls.push('up');
    if (this.takeUpFailure) throw this.takeUpFailure;
    (port as TestLink).isUp = true;
  }
}

/** Lets the engine's ports carry VNICs from here on. */
export function withVnics({ links }: MemoryOverlay): TestVnics {
  const vnics = new TestVnics();
  Object.assign(links, { vnics });
  return vnics;
}
