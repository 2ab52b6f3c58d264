/**
 * The WebAssembly core, instantiated over the shared memory: once in main, once in each worker. The only file
 * that uses the AssemblyScript loader.
 */
import { readFileSync } from 'node:fs';
import { instantiateSync } from '@assemblyscript/loader';
import * as layout from '../../assembly/layout.js';
import { assert } from '../errors.js';

/** Functions of `assembly/index.ts`. Pointers and rows are unsigned; a trap throws WebAssembly.RuntimeError. */
export interface Core {
  flowHash(frame: number, length: number, seed: bigint): number;
  vnetSlot(mux: number, vnetid: bigint): number;
  findDevice(mux: number, vnetid: bigint): number;
  ringCreate(ring: number, capacity: number): void;
  ringPush(ring: number, from: number, length: number): number;
  ringPop(ring: number, into: number, max: number): number;
  ringPeek(ring: number): number;
  ringPeekBytes(ring: number): number;
  ringDrop(ring: number): void;
  isKnownSource(set: number, high: bigint, low: bigint): number;
  sourceSlot(high: bigint, low: bigint, slots: number): number;
  targetSlot(table: number, mac: bigint): number;
  targetPlace(table: number, mac: bigint): number;
  targetRoom(table: number, mac: bigint): number;
  targetRehash(from: number, to: number): number;
  targetFind(table: number, mac: bigint): bigint;
  targetLookupBatch(table: number, arena: number, count: number): void;
  targetCountBatch(table: number, arena: number, count: number, bytes: number): void;
  injectTake(arena: number): number;
  waitTake(arena: number): number;
  missDrop(arena: number): void;
  sharesForget(arena: number): void;
  missPush(arena: number, device: number, kind: number, vnetHdr: number, bytes: number): number;
  waitPush(arena: number, device: number, vnetHdr: number, bytes: number): number;
  txDecide(arena: number, device: number, first: number, count: number): void;
  txFrame(arena: number, device: number, index: number): number;
  txDecideDeferred(arena: number, device: number, kind: number, first: number, count: number): void;
  /** True when a frame of the batch is to be replicated. */
  txReplicas(arena: number, count: number): number;
  txReplicate(arena: number, device: number, index: number, from: number): number;
  txTrapped(arena: number, device: number): number;
  txArrange(arena: number, device: number, count: number): number;
  /** Lays out the next messages of the batch; returns the groups, 0 when there are none. */
  txLayOut(arena: number, device: number): number;
  txSent(arena: number, device: number, first: number, count: number): void;
  txFailed(arena: number, device: number, message: number, reason: number): void;
  /** Goes back to where a message begins; `txLayOut` then gives every datagram a message of its own. */
  txRetreat(arena: number, message: number): void;
  txUnlabel(arena: number, message: number): boolean;
  txDatagrams(arena: number, message: number): number;
  sumBytes(from: number, length: number): bigint;
  rxPrepare(arena: number): void;
  rxBegin(arena: number, mux: number, messages: number): void;
  /** Lists the next datagrams of the messages; 0 when there are no more. */
  rxUnfold(arena: number, mux: number): number;
  rxGather(arena: number): void;
  rxDecide(arena: number, mux: number, first: number, count: number): number;
  rxDatagram(arena: number, mux: number): number;
  rxTrapped(arena: number, mux: number): number;
  rxFailed(arena: number, index: number, reason: number): void;
  rxDelivered(arena: number): void;
  dropDevice(arena: number, device: number, reason: number, frames: number): void;
  dropMux(arena: number, mux: number, reason: number, datagrams: number): void;
  countDevice(arena: number, device: number, counter: number, amount: number): void;
  countWorker(arena: number, counter: number, amount: number): void;
}

const wasmFile = new URL('../../assembly/core.wasm', import.meta.url);

/** Compiles the core; workers get the compiled module. */
export function compileCore(): WebAssembly.Module {
  return new WebAssembly.Module(readFileSync(wasmFile));
}

/** Instantiates the core and asserts that both compilers saw the same `layout.ts`. */
export function instantiateCore(module: WebAssembly.Module, memory: WebAssembly.Memory): Core {
  const { exports } = instantiateSync(module, { env: { memory } });
  for (const [name, value] of Object.entries(layout)) {
    const seen = (exports[name] as { value?: number } | undefined)?.value;
    // WebAssembly hands out 32-bit globals as signed.
    assert(
      seen !== undefined && seen >>> 0 === value >>> 0,
      `layout ${name} is ${value} here and ${seen} in core.wasm; build both together`,
    );
  }
  return exports as unknown as Core;
}
