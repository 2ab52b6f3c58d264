/** The library: an engine of overlay devices to embed. The theory is in `overlay.ts`. */

export { ControlClient } from './control/client.js';
export { ControlServer } from './control/server.js';
export type { EncapOperations, EncapPlugin } from './encap/plugin.js';
export { EncapRegistry } from './encap/registry.js';
export { OverlayError } from './errors.js';
export { type Log, silent } from './log.js';
export type { PortEvent, PortLeft, PortRequest, PortSource } from './overlay/ports.js';
export { TapSource } from './overlay/tap-source.js';
export type { OverlayRequest } from './overlay/transaction.js';
export { Overlay, type OverlayOptions } from './overlay.js';
export { type PropertyInfo, PropertyStore, type PropertyValue } from './property.js';
export { MemoryPort } from './sys/memory-port.js';
export type { Port } from './sys/port.js';
export { Tap } from './sys/tap.js';
export type { Destination, Route } from './target/destination.js';
export type {
  Answer,
  ArpQuery,
  LookupInstance,
  LookupPlugin,
  LookupRequest,
  LookupServices,
} from './varpd/plugin.js';
export { Varpd } from './varpd/varpd.js';
