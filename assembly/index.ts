/** What the module exports; nothing else is in this file. The theory is in `src/overlay.ts`. */

export {
  txArrange,
  txDatagrams,
  txFailed,
  txLayOut,
  txReplicas,
  txReplicate,
  txRetreat,
  txSent,
  txUnlabel,
} from './arrange';
export { sumBytes } from './checksum';
export { countDevice, countWorker, dropDevice, dropMux } from './counter';
export { injectTake, missDrop, missPush, sharesForget, waitPush, waitTake } from './deferred';
export { flowHash } from './flow-hash';
export * from './layout';
export { ringCreate, ringDrop, ringPeek, ringPeekBytes, ringPop, ringPush } from './ring';
export { rxDatagram, rxDecide, rxDelivered, rxFailed, rxGather, rxTrapped } from './rx';
export { rxBegin, rxPrepare, rxUnfold } from './unfold';
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
export { txDecide, txDecideDeferred, txFrame, txTrapped } from './tx';
