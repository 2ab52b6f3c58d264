/**
 * A transfer in numbered blocks, each with a checksum and each acknowledged. Nothing is sent again: no more
 * blocks are under way than every buffer on the way holds, so that none may be lost.
 */
import { monotonicMs, nextTurn } from '../sys/clock.js';
import { BLOCK_HEADER_BYTES } from './frame.js';
import type { MemoryHost } from './memory-host.js';
import { isPiece, piece } from './pattern.js';
import { STALL_MS_MAX, type TransferResult, transferMsMax } from './transfer.js';

/** An ordinary user's socket buffers (net.core.rmem_max, 208 KiB as shipped) hold some 90 of these frames. */
const WINDOW_BLOCKS = 48;

/** Transfers from one host to the other; rejects when nothing moves for STALL_MS_MAX. */
export async function transferBlocks(
  from: MemoryHost,
  to: MemoryHost,
  mtu: number,
  totalBytes: number,
  onProgress: (bytes: number) => void,
): Promise<TransferResult> {
  const blockBytes = mtu - BLOCK_HEADER_BYTES;
  const blocks = Math.ceil(totalBytes / blockBytes);
  const arrived = new Uint8Array(blocks);
  let sent = 0;
  let acknowledged = 0;
  let received = 0;
  let receivedBytes = 0;
  let isIntact = true;

  to.onBlock = (block) => {
    // Damaged, never sent, or here already.
    if (block?.kind !== 'data' || block.number >= blocks || arrived[block.number]) {
      isIntact = false;
      return;
    }
    arrived[block.number] = 1;
    isIntact &&= isPiece(block.data, block.number * blockBytes);
    received++;
    receivedBytes += block.data.length;
    // A full link here makes the window wait for the next answer, which says as much.
    to.sendBlock(from.station, { kind: 'ack', number: received, data: new Uint8Array() });
  };
  from.onBlock = (block) => {
    if (block?.kind === 'ack') acknowledged = Math.max(acknowledged, block.number);
    else isIntact = false;
  };

  const begunMs = monotonicMs();
  const deadline = begunMs + transferMsMax(totalBytes);
  let movedMs = begunMs;
  while (acknowledged < blocks) {
    while (sent < blocks && sent - acknowledged < WINDOW_BLOCKS) {
      const position = sent * blockBytes;
      const data = piece(position, Math.min(blockBytes, totalBytes - position));
      if (!from.sendBlock(to.station, { kind: 'data', number: sent, data })) break;
      sent++;
    }
    const now = monotonicMs();
    if (to.turn(from.station) + from.turn(to.station) > 0) {
      movedMs = now;
      onProgress(receivedBytes);
    }
    if (now - movedMs > STALL_MS_MAX) throw new Error(`nothing arrived for ${STALL_MS_MAX / 1000} s`);
    if (now > deadline) throw new Error('the transfer took too long');
    await nextTurn();
  }
  return { bytes: receivedBytes, seconds: (monotonicMs() - begunMs) / 1000, isIntact };
}
