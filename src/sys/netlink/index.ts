/** The kernel's links, addresses, routes and neighbours of one network namespace, through one request socket. */
import * as address from './address.js';
import * as link from './link.js';
import * as namespace from './namespace.js';
import * as route from './route.js';
import { RequestSocket } from './socket.js';

export type { Address, AddressOptions, Neighbour } from './address.js';
export type { Link, LinkChange, LinkStats, MacvlanOptions, OperState, VethOptions } from './link.js';
export type { RouteTo } from './route.js';
export { EventSocket, type LinkEvent, RouteWatch } from './socket.js';

/**
 * Every method waits for the kernel's answer and throws SystemError with what it was refused for, ETIME when there
 * is none for 2 s. The functions of the same names tell the rest.
 */
export class Netlink {
  readonly #socket: RequestSocket;

  /** Opens the socket in the namespace the calling thread is in now, and stays there. */
  constructor() {
    this.#socket = new RequestSocket();
  }

  close(): void {
    this.#socket.close();
  }

  /** Of the namespace, or of another one by its id. */
  listLinks(namespaceId?: number): link.Link[] {
    return link.listLinks(this.#socket, namespaceId);
  }

  /** By name or index. Throws ENODEV when there is none. */
  getLink(nameOrIndex: string | number): link.Link {
    return link.getLink(this.#socket, nameOrIndex);
  }

  createVeth(name: string, peerName: string, options?: link.VethOptions): void {
    link.createVeth(this.#socket, name, peerName, options);
  }

  createMacvlan(name: string, lowerIndex: number, options?: link.MacvlanOptions): void {
    link.createMacvlan(this.#socket, name, lowerIndex, options);
  }

  createBridge(name: string): void {
    link.createBridge(this.#socket, name);
  }

  deleteLink(index: number, namespaceId?: number): void {
    link.deleteLink(this.#socket, index, namespaceId);
  }

  /** Id of the namespace of a descriptor, as the socket's namespace numbers others. */
  namespaceId(fd: number): number {
    return namespace.namespaceId(this.#socket, fd);
  }

  /** Of every namespace that is there and has an id. */
  listNamespaceIds(): number[] {
    return namespace.listNamespaceIds(this.#socket);
  }

  setLink(index: number, change: link.LinkChange): void {
    link.setLink(this.#socket, index, change);
  }

  addAddress(index: number, ipAndPrefix: string, options?: address.AddressOptions): void {
    address.addAddress(this.#socket, index, ipAndPrefix, options);
  }

  removeAddress(index: number, ipAndPrefix: string): void {
    address.removeAddress(this.#socket, index, ipAndPrefix);
  }

  /** Of one link, or of all. */
  listAddresses(index?: number): address.Address[] {
    return address.listAddresses(this.#socket, index);
  }

  /** Undefined when there is none. */
  getRoute(to: string, from?: string): route.RouteTo | undefined {
    return route.getRoute(this.#socket, to, from);
  }

  /** What ends at this host, as prefixes. */
  listLocalPrefixes(): string[] {
    return route.listLocalPrefixes(this.#socket);
  }

  addNeighbour(index: number, ip: string, mac: string): void {
    address.addNeighbour(this.#socket, index, ip, mac);
  }

  removeNeighbour(index: number, ip: string): void {
    address.removeNeighbour(this.#socket, index, ip);
  }

  /** Of one link, or of all. */
  listNeighbours(index?: number): address.Neighbour[] {
    return address.listNeighbours(this.#socket, index);
  }
}
