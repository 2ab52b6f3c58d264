/**
 * varpd's part in a request: asks the instance, carries out its answer, acts as proxy. Whatever an instance does wrong
 * becomes a fault of its device and a drop of the frame; it never gets further.
 */
import { VNET_HDR_BYTES } from '../../assembly/layout.js';
import { assert, OverlayError } from '../errors.js';
import { checkRoute } from '../target/destination.js';
import { parseMac } from '../target/mac.js';
import type { TargetRequest } from '../target/request.js';
import type { Answer, LookupInstance, LookupRequest } from './plugin.js';
import { arpReply, parseArpRequest } from './proxy/arp.js';
import { dhcpRequestTo, parseDhcpRequest } from './proxy/dhcp.js';
import { advertisement, parseSolicitation } from './proxy/ndp.js';
import { questionOf } from './question.js';

/** Flag of struct virtio_net_hdr: the checksum is unfinished. */
const NEEDS_CSUM = 1;

export interface DispatchServices {
  readonly overlay: string;
  readonly vnetid: bigint;
  /** DESTINATION_ bits that a route must have. */
  readonly destinations: number;
  /** In, to the guests of this host; a frame from its Ethernet header. */
  inject(frame: Uint8Array): void;
  /** Out, the ordinary way, with a vnet_hdr. */
  resend(frame: Uint8Array): void;
  /** The instance failed at something: a sentence for people. */
  fault(text: string): void;
  /** It answered as it should. */
  recovered(): void;
}

export class Dispatcher {
  constructor(
    readonly lookup: LookupInstance,
    readonly services: DispatchServices,
  ) {}

  /** Has the request answered, at once or later. Never throws for what the instance does. */
  ask(request: TargetRequest): void {
    request.take();
    const asked = questionOf(this.services.overlay, this.services.vnetid, request);
    if (!asked) {
      request.drop();
      return;
    }
    try {
      assert(this.lookup.lookup, 'a DYNAMIC instance has lookup');
      this.#whenReady(request, this.lookup.lookup(asked), (answer) => this.#answer(request, asked, answer));
    } catch (error) {
      this.#fail(request, error);
    }
  }

  /** Goes on with a value, or with what a promise brings; both ways a failure is the instance's. */
  #whenReady<Value>(request: TargetRequest, value: Value | Promise<Value>, go: (value: Value) => void): void {
    if (!(value instanceof Promise)) {
      go(value);
      return;
    }
    value.then(go).catch((error: unknown) => this.#fail(request, error));
  }

  #answer(request: TargetRequest, asked: LookupRequest, answer: Answer): void {
    // Late: somebody else has settled it.
    if (!request.isOpen) return;
    switch (answer) {
      case 'drop':
        request.drop();
        break;
      case 'unknown':
        request.unknown();
        break;
      case 'proxy-arp':
        this.#proxyArp(request, asked);
        return;
      case 'proxy-ndp':
        this.#proxyNdp(request, asked);
        return;
      case 'proxy-dhcp':
        this.#proxyDhcp(request, asked);
        return;
      default:
        request.respond(checkRoute(answer, this.services.destinations));
    }
    this.services.recovered();
  }

  #proxyArp(request: TargetRequest, asked: LookupRequest): void {
    const frame = request.frame.subarray(VNET_HDR_BYTES);
    const arp = parseArpRequest(frame);
    if (!arp) {
      this.#proxied(request, undefined);
      return;
    }
    const mac = this.lookup.arp?.({ family: 4, ip: arp.ip, request: asked });
    this.#whenReady(request, mac, (found) =>
      this.#proxied(request, found === undefined ? undefined : arpReply(frame, parseMac(found))),
    );
  }

  #proxyNdp(request: TargetRequest, asked: LookupRequest): void {
    const frame = request.frame.subarray(VNET_HDR_BYTES);
    const isChecksumUnfinished = (request.frame[0]! & NEEDS_CSUM) !== 0;
    const solicitation = parseSolicitation(frame, { isChecksumUnfinished });
    if (!solicitation) {
      this.#proxied(request, undefined);
      return;
    }
    const mac = this.lookup.arp?.({ family: 6, ip: solicitation.ip, request: asked });
    this.#whenReady(request, mac, (found) =>
      this.#proxied(
        request,
        found === undefined ? undefined : advertisement(frame, solicitation, parseMac(found)),
      ),
    );
  }

  #proxyDhcp(request: TargetRequest, asked: LookupRequest): void {
    const frame = request.frame.subarray(VNET_HDR_BYTES);
    if (!parseDhcpRequest(frame)) {
      this.#proxied(request, undefined);
      return;
    }
    this.#whenReady(request, this.lookup.dhcp?.(asked), (server) => {
      if (!request.isOpen) return;
      if (server === undefined) return this.#proxied(request, undefined);
      const sent = dhcpRequestTo(frame, parseMac(server));
      if (!sent) return this.#proxied(request, undefined);
      const whole = new Uint8Array(VNET_HDR_BYTES + sent.length);
      whole.set(request.frame.subarray(0, VNET_HDR_BYTES));
      whole.set(sent, VNET_HDR_BYTES);
      request.drop(true);
      this.services.resend(whole);
      this.services.recovered();
    });
  }

  /** Ends a request that a proxy took, with an answer to the guest or without. */
  #proxied(request: TargetRequest, answer: Uint8Array | undefined): void {
    if (!request.isOpen) return;
    // Before the request ends, since the frame behind it may be answered next.
    if (answer) this.services.inject(answer);
    request.drop(answer !== undefined);
    this.services.recovered();
  }

  #fail(request: TargetRequest, error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    this.services.fault(`the lookup plugin failed: ${text}`);
    // EAGAIN: it is away for a moment, so the frames wait for the deadline.
    if (error instanceof OverlayError && (error.errno === 'EAGAIN' || error.errno === 'ETIME')) return;
    request.drop();
  }
}
