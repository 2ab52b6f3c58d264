/**
 * Two hosts with one overlay for each lookup there is: host a looks up by `direct`, `learn`, `files`, `external` (a program on the
 * handle answers) and a plugin in a thread of its own. Host b sends back by `direct`, and by `learn` on the overlay of `learn`.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatMac } from '../../src/target/mac.js';
import { HandleClient } from './handle-client.js';
import { type Daemon, type Hosts, underlay, until } from './hosts.js';

export const LOOKUPS = ['direct', 'learn', 'files', 'external', 'plugin'] as const;
/** Those with a target for each address. */
export const DYNAMIC = ['learn', 'files', 'external', 'plugin'] as const;
export type LookupName = (typeof LOOKUPS)[number];

const PLUGIN = join(import.meta.dirname, '../plugins/steady.js');
const PORT = 4789;
/** Host b has two addresses: guests can move from one to the other. */
const FAR_ALSO = '192.0.2.3';
/** Guests that exist only as addresses have these, by number. */
const STRANGERS = 0x0208_2100_0000;

/** Flags of the daemon of host a: the plugin is loaded. */
export const LOOKUP_FLAGS = ['--plugin', PLUGIN] as const;

const numberOf = (lookup: LookupName) => LOOKUPS.indexOf(lookup);

export const linkOf = (lookup: LookupName) => `ov-${lookup}`;
/** Inner address of a side. */
export const innerOf = (lookup: LookupName, side: 'a' | 'b') =>
  `198.51.${100 + numberOf(lookup)}.${side === 'a' ? 1 : 2}`;
const macOf = (lookup: LookupName, side: 'a' | 'b') =>
  `02:08:20:00:0${numberOf(lookup)}:0${side === 'a' ? 1 : 2}`;
export const strangerMac = (number: number) => formatMac(STRANGERS + number);

export interface SceneOptions {
  /** Most addresses that `learn` may know. */
  readonly learnLimit?: number;
  /** Seconds after which `learn` forgets. */
  readonly learnAge?: number;
}

export class LookupScene {
  readonly #file: string;
  #strangers: readonly number[] = [];
  #far: string = underlay[4].b;
  #handle: HandleClient | undefined;
  #isAnswering = true;
  #answering: Promise<void> = Promise.resolve();
  /** What the program on the handle has answered. */
  answers = 0;

  private constructor(
    readonly hosts: Hosts,
    readonly daemons: { readonly a: Daemon; readonly b: Daemon },
  ) {
    this.#file = join(hosts.directory, 'mappings.json');
  }

  /** @param lookups which of them there are to be */
  static async create(
    hosts: Hosts,
    daemons: { readonly a: Daemon; readonly b: Daemon },
    lookups: readonly LookupName[] = LOOKUPS,
    options: SceneOptions = {},
  ): Promise<LookupScene> {
    const scene = new LookupScene(hosts, daemons);
    const { netlink } = hosts.b;
    netlink.addAddress(netlink.getLink('underlay0').index, `${FAR_ALSO}/24`);
    scene.#write();
    for (const lookup of lookups) await scene.#make(lookup, options);
    if (lookups.includes('external')) await scene.takeHandle();
    for (const lookup of lookups) scene.#guests(lookup);
    for (const lookup of lookups) {
      await until(`${lookup} forwards`, 10_000, () => scene.forwards(lookup));
    }
    return scene;
  }

  /** One echo there and back. */
  forwards(lookup: LookupName): boolean {
    const { status } = this.hosts.a.attempt('ping', '-q', '-c', '1', '-W', '1', innerOf(lookup, 'b'));
    return status === 0;
  }

  /** Opens the handle and answers from then on; leaves it first when it has one, as a program that is started again. */
  async takeHandle(): Promise<void> {
    await this.leaveHandle();
    this.#isAnswering = true;
    const { socket } = this.daemons.a;
    await until('the handle is free', 5000, async () => {
      this.#handle = await HandleClient.open(socket, true).catch(() => undefined);
      return this.#handle !== undefined;
    });
    const handle = this.#handle!;
    await handle.call('associate', { overlay: linkOf('external'), mode: 'dynamic' }).catch((error) => {
      // It is, since the program before this one.
      if ((error as { errno?: string }).errno !== 'EEXIST') throw error;
    });
    this.#answering = this.#answer(handle);
  }

  async leaveHandle(): Promise<void> {
    this.#isAnswering = false;
    this.#handle?.cut();
    this.#handle = undefined;
    await this.#answering;
  }

  async #answer(handle: HandleClient): Promise<void> {
    while (this.#isAnswering) {
      try {
        const { id } = await handle.lookup(200);
        await handle.call('respond', { request: id, to: { ip: this.#far, port: PORT } });
        this.answers++;
      } catch (error) {
        // Nobody asked, or the target was forgotten meanwhile, or the handle is cut.
        if ((error as { errno?: string }).errno === undefined) return;
      }
    }
  }

  /** The strangers that `files` knows from now on. */
  know(numbers: readonly number[]): void {
    this.#strangers = numbers;
    this.#write();
  }

  /** All guests behind host b move to its other address. */
  async move(): Promise<void> {
    this.#far = this.#far === underlay[4].b ? FAR_ALSO : underlay[4].b;
    this.#write();
    await this.set('plugin', 'steady/ip', this.#far);
  }

  set(lookup: LookupName, property: string, value: string | number): Promise<unknown> {
    const path = `/v1/overlays/${linkOf(lookup)}/properties/${encodeURIComponent(property)}`;
    return this.daemons.a.client.put(path, { value: `${value}` });
  }

  flush(lookup: LookupName): Promise<unknown> {
    return this.daemons.a.client.delete(`/v1/overlays/${linkOf(lookup)}/targets`);
  }

  #write(): void {
    const to = { ip: this.#far, port: PORT };
    const macs = [macOf('files', 'b'), ...this.#strangers.map(strangerMac)];
    writeFileSync(`${this.#file}.new`, JSON.stringify(Object.fromEntries(macs.map((mac) => [mac, to]))));
    renameSync(`${this.#file}.new`, this.#file);
  }

  #properties(lookup: LookupName, options: SceneOptions): object {
    const learn = (peer: string) => ({
      'learn/port': PORT,
      'learn/flood': peer,
      'learn/age': options.learnAge ?? 300,
      'learn/limit': options.learnLimit ?? 16_384,
    });
    switch (lookup) {
      case 'direct':
        return { 'direct/dest_ip': underlay[4].b, 'direct/dest_port': PORT };
      case 'learn':
        return learn(underlay[4].b);
      case 'files':
        return { 'files/config': this.#file, 'files/local_ip': underlay[4].a };
      case 'plugin':
        return { 'steady/ip': this.#far };
      default:
        return {};
    }
  }

  async #make(lookup: LookupName, options: SceneOptions): Promise<void> {
    const { a, b } = this.daemons;
    const common = { name: linkOf(lookup), encap: 'vxlan', vnetid: 7 + numberOf(lookup) };
    await a.client.post('/v1/overlays', {
      ...common,
      search: lookup === 'plugin' ? 'steady' : lookup,
      properties: { 'vxlan/listen_ip': underlay[4].a, ...this.#properties(lookup, options) },
    });
    const back = { 'direct/dest_ip': underlay[4].a, 'direct/dest_port': PORT };
    const learn = { 'learn/port': PORT, 'learn/flood': underlay[4].a };
    await b.client.post('/v1/overlays', {
      ...common,
      search: lookup === 'learn' ? 'learn' : 'direct',
      properties: { 'vxlan/listen_ip': '0.0.0.0', ...(lookup === 'learn' ? learn : back) },
    });
  }

  /** Guests know each other's MAC addresses, so that none of them asks by broadcast. */
  #guests(lookup: LookupName): void {
    const link = linkOf(lookup);
    for (const side of ['a', 'b'] as const) {
      const other = side === 'a' ? 'b' : 'a';
      const host = this.hosts[side];
      host.netlink.setLink(host.netlink.getLink(link).index, { mac: macOf(lookup, side) });
      this.hosts.address(side, link, `${innerOf(lookup, side)}/24`);
      const to = ['to', innerOf(lookup, other), 'lladdr', macOf(lookup, other)];
      host.run('ip', 'neighbour', 'replace', ...to, 'dev', link, 'nud', 'permanent');
    }
  }

  async close(): Promise<void> {
    await this.leaveHandle();
  }
}
