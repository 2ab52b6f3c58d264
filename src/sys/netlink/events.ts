/** The stream of link and address changes of a namespace. */
import { macros } from '../abi.js';
import { decodeAddress } from './address.js';
import { decodeLink, isDeletion } from './link.js';
import type { Message } from './message.js';
import { GroupSocket } from './socket.js';

const rt = macros['linux/rtnetlink.h'];
const DATAGRAMS_PER_DRAIN_MAX = 256;

export type LinkEvent =
  | {
      readonly kind: 'link';
      readonly index: number;
      readonly name: string;
      readonly isUp: boolean;
      readonly hasCarrier: boolean;
      readonly mtu: number;
      readonly mac: string;
      readonly deleted: boolean;
    }
  | { readonly kind: 'address'; readonly index: number; readonly address: string; readonly deleted: boolean }
  /** Some were lost: list everything again. */
  | { readonly kind: 'overrun' };

export class EventSocket {
  readonly #socket = new GroupSocket([rt.RTNLGRP_LINK, rt.RTNLGRP_IPV4_IFADDR, rt.RTNLGRP_IPV6_IFADDR]);

  /** What has happened since, without blocking; bounded, the rest comes with the next call. */
  drain(): LinkEvent[] {
    const events: LinkEvent[] = [];
    for (let datagrams = 0; datagrams < DATAGRAMS_PER_DRAIN_MAX; datagrams++) {
      const messages = this.#socket.receive();
      if (messages === undefined) break;
      if (messages === 'overrun') events.push({ kind: 'overrun' });
      else events.push(...messages.flatMap(toEvent));
    }
    return events;
  }

  close(): void {
    this.#socket.close();
  }
}

function toEvent(message: Message): LinkEvent[] {
  switch (message.type) {
    case rt.RTM_NEWLINK:
    case rt.RTM_DELLINK: {
      const { index, name, isUp, hasCarrier, mtu, mac } = decodeLink(message);
      return [{ kind: 'link', index, name, isUp, hasCarrier, mtu, mac, deleted: isDeletion(message) }];
    }
    case rt.RTM_NEWADDR:
    case rt.RTM_DELADDR: {
      const { index, address } = decodeAddress(message);
      return [{ kind: 'address', index, address, deleted: message.type === rt.RTM_DELADDR }];
    }
    default:
      return [];
  }
}
