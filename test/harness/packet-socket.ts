/** A guest that sends any frame on a link of a host, from and to whatever addresses (man 7 packet). */
import { SOCK_CLOEXEC, SOCK_RAW } from '../../src/sys/abi.js';
import { must } from '../../src/sys/errno.js';
import { closeFd } from '../../src/sys/fd.js';
import * as libc from '../../src/sys/libc.js';
import { inNamespace } from '../../src/sys/netns.js';
import type { Host } from './hosts.js';

const AF_PACKET = 17;
const SOCKADDR_LL_BYTES = 20;

export class PacketSocket {
  readonly #fd: number;
  readonly #to = new Uint8Array(SOCKADDR_LL_BYTES);

  constructor(host: Host, link: string) {
    this.#fd = inNamespace(host.namespace, () =>
      must(libc.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'socket'),
    );
    const view = new DataView(this.#to.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setInt32(4, host.netlink.getLink(link).index, true);
  }

  /** False when the link has no room for it. */
  send(frame: Uint8Array): boolean {
    return libc.sendto(this.#fd, frame, frame.length, 0, this.#to, this.#to.length) === frame.length;
  }

  close(): void {
    closeFd(this.#fd);
  }
}
