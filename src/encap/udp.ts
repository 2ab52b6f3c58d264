/** What encapsulations over UDP have in common beyond the rest: ports, checksums, and what they declare. */
import { SOURCE_PORT_MAX, SOURCE_PORT_MIN } from '../limits.js';
import { type PropertyInfo, type PropertyStore, reopening } from '../property.js';
import { listenInfo, outerInfos, outerOperations } from './outer.js';
import {
  DESTINATION_IP,
  DESTINATION_PORT,
  ENCAP_FLAG_VLAN_TAG,
  ENCAP_VERSION,
  type EncapOperations,
  type EncapPlugin,
} from './plugin.js';

const PORT_MAX = 65535;
/**
 * `<encap>/listen_ip`, `listen_port` with its default, those of every encapsulation, `source_ports`, `zerocsum6_tx` and
 * `zerocsum6_rx`.
 */
export function udpInfos(encap: string, port: bigint): PropertyInfo[] {
  return [
    listenInfo(encap),
    {
      ...reopening,
      name: `${encap}/listen_port`,
      type: 'uint',
      isRequired: true,
      default: port,
      possible: [{ min: 1n, max: BigInt(PORT_MAX) }],
    },
    ...outerInfos(encap),
    {
      ...reopening,
      name: `${encap}/source_ports`,
      type: 'string',
      isRequired: false,
      default: `${SOURCE_PORT_MIN}-${SOURCE_PORT_MAX}`,
      fault: (value) =>
        portsOf(String(value)) ? undefined : `it is a range within 1-${PORT_MAX}, such as 50000-50999`,
    },
    checksumInfo(`${encap}/zerocsum6_tx`),
    checksumInfo(`${encap}/zerocsum6_rx`),
  ];
}

function checksumInfo(name: string): PropertyInfo {
  return {
    ...reopening,
    name,
    type: 'string',
    isRequired: false,
    default: 'off',
    possible: ['on', 'off'],
  };
}

/** First and last port of a range, undefined for what is none. */
function portsOf(text: string): [number, number] | undefined {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(text);
  if (!match) return undefined;
  const [first, last] = [Number(match[1]), Number(match[2])];
  return first >= 1 && first <= last && last <= PORT_MAX ? [first, last] : undefined;
}

/** What an encapsulation over UDP has of its own. */
export interface UdpEncap
  extends Pick<EncapPlugin, 'name' | 'core'>,
    Pick<EncapOperations, 'encap' | 'decap'> {
  /** Of its properties, `udpInfos` among them. */
  readonly infos: readonly PropertyInfo[];
}

/** A plugin for an encapsulation over UDP that has vnetids of 24 bits and carries VLAN tags. */
export function udpPlugin({ name, core, infos, encap, decap }: UdpEncap): EncapPlugin {
  return {
    version: ENCAP_VERSION,
    name,
    idBytes: 3,
    flags: ENCAP_FLAG_VLAN_TAG,
    destinations: DESTINATION_IP | DESTINATION_PORT,
    core,
    properties: infos.map((info) => info.name),
    operations: { ...udpOperations(name, infos), encap, decap },
  };
}

function udpOperations(
  encap: string,
  infos: readonly PropertyInfo[],
): Omit<EncapOperations, 'encap' | 'decap'> {
  const operations = outerOperations(encap, infos);
  return {
    ...operations,
    sockets: (properties: PropertyStore) => ({
      ...operations.sockets!(properties),
      sourcePorts: portsOf(String(properties.get(`${encap}/source_ports`)))!,
      zerocsum6Tx: properties.get(`${encap}/zerocsum6_tx`) === 'on',
      zerocsum6Rx: properties.get(`${encap}/zerocsum6_rx`) === 'on',
    }),
  };
}
