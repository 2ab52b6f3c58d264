/**
 * Ids by which a network namespace knows others (man 8 ip-netns, `list-id`; RTM_NEWNSID and its kin): struct rtgenmsg and
 * NETNSA_... attributes. An id is good for as long as its namespace lives, under whatever name or none; the kernel gives
 * one by itself when a link moves there.
 */

import { macros, structs } from '../abi.js';
import { EEXIST, SystemError } from '../errno.js';
import { encodeBody, malformed, parseAttributes, readU32, u32 } from './message.js';
import type { RequestSocket } from './socket.js';

const { NLM_F_DUMP } = macros['linux/netlink.h'];
const { RTM_GETNSID, RTM_NEWNSID } = macros['linux/rtnetlink.h'];
const { NETNSA_FD, NETNSA_NSID } = macros['linux/net_namespace.h'];

/** NETNSA_NSID_NOT_ASSIGNED, -1: in an answer it has none, in a request the kernel chooses. */
const NOT_ASSIGNED = 0xffffffff;

/**
 * Id of the namespace of a descriptor, from here on where it had none. Throws SystemError EINVAL when the descriptor is
 * of something else, EPERM without CAP_NET_ADMIN.
 */
export function namespaceId(socket: RequestSocket, fd: number): number {
  const known = idOf(socket, fd);
  if (known !== undefined) return known;
  const body = encodeBody(generic(), [
    { type: NETNSA_NSID, value: u32(NOT_ASSIGNED) },
    { type: NETNSA_FD, value: u32(fd) },
  ]);
  try {
    socket.request({ type: RTM_NEWNSID, body, what: 'number a network namespace' });
  } catch (error) {
    // Another program, or the kernel, was faster.
    if (!(error instanceof SystemError) || error.number !== EEXIST) throw error;
  }
  const id = idOf(socket, fd);
  if (id === undefined) throw malformed('a namespace has no id after it was given one');
  return id;
}

/** Ids of all namespaces that have one and are there. */
export function listNamespaceIds(socket: RequestSocket): number[] {
  const request = { type: RTM_GETNSID, flags: NLM_F_DUMP, body: generic(), what: 'list namespaces' };
  return socket
    .request(request)
    .map(readId)
    .filter((id) => id !== undefined);
}

function idOf(socket: RequestSocket, fd: number): number | undefined {
  const body = encodeBody(generic(), [{ type: NETNSA_FD, value: u32(fd) }]);
  const [answer] = socket.request({ type: RTM_GETNSID, body, what: 'id of a network namespace' });
  if (answer === undefined) throw malformed('no answer about a namespace');
  return readId(answer);
}

function readId(body: Uint8Array): number | undefined {
  const id = readU32(parseAttributes(body, structs.rtgenmsg.size).get(NETNSA_NSID));
  return id === NOT_ASSIGNED ? undefined : id;
}

/** struct rtgenmsg of no family. */
function generic(): Uint8Array {
  return new Uint8Array(structs.rtgenmsg.size);
}
