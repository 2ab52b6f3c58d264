/** What the module exports; nothing else is in this file. The theory is in `src/overlay.ts`. */

export { countDevice, countWorker, dropDevice, dropMux } from './counter';
export { injectTake, missPush, waitPush, waitTake } from './deferred';
export { flowHash } from './flow-hash';
export * from './layout';
export { ringCreate, ringDrop, ringPeek, ringPeekBytes, ringPop, ringPush } from './ring';
export { rxDatagram, rxDecide, rxDelivered, rxFailed, rxPrepare, rxTrapped } from './rx';
export { isKnownSource, sourceSlot } from './source';
export { findDevice, vnetSlot } from './table';
export {
  targetCountBatch,
  targetFind,
  targetLookupBatch,
  targetPlace,
  targetRehash,
  targetRoom,
  targetSlot,
} from './target';
export { txArrange, txDecide, txDecideDeferred, txFrame, txReplicas, txReplicate, txSent, txTrapped } from './tx';
