/** What the module exports; nothing else is in this file. The theory is in `src/overlay.ts`. */

export { countDevice, countWorker, dropDevice, dropMux } from './counter';
export { flowHash } from './flow-hash';
export * from './layout';
export { ringCreate, ringPop, ringPush } from './ring';
export { rxDatagram, rxDecide, rxDelivered, rxFailed, rxPrepare, rxTrapped } from './rx';
export { findDevice, vnetSlot } from './table';
export { txArrange, txDecide, txFrame, txSent, txTrapped } from './tx';
