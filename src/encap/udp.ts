/** What encapsulations over UDP have in common: the port they listen at, between the rest. */
import type { PropertyInfo } from '../property.js';
import { listenInfo, outerInfos } from './outer.js';

/** `<encap>/listen_ip`, `listen_port` with its default, and those of every encapsulation. */
export function udpInfos(encap: string, port: bigint): PropertyInfo[] {
  return [
    listenInfo(encap),
    {
      isReadable: true,
      isWritable: true,
      name: `${encap}/listen_port`,
      type: 'uint',
      isRequired: true,
      applies: 'reopen',
      default: port,
      possible: [{ min: 1n, max: 65535n }],
    },
    ...outerInfos(encap),
  ];
}
