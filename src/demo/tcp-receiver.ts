/**
 * Receiving end of a TCP transfer, in a process in its host's namespace: takes one connection and checks
 * every byte.
 * `tcp-receiver.js <ip> <port>`
 */
import { createServer } from 'node:net';
import { monotonicMs } from '../sys/clock.js';
import { isPiece } from './pattern.js';
import type { TransferMessage } from './transfer.js';

const REPORT_MS = 50;

const [ip = '', port = ''] = process.argv.slice(2);
// The demo is gone: nobody wants this transfer.
process.on('disconnect', () => process.exit(1));

function tell(message: TransferMessage, then: () => void = () => {}): void {
  process.send?.(message, then);
}

function fail(error: Error): void {
  tell({ kind: 'failed', reason: `receiver: ${error.message}` }, () => process.exit(1));
}

const server = createServer((socket) => {
  server.close();
  let bytes = 0;
  let isIntact = true;
  let begunMs = monotonicMs();
  let reportedMs = begunMs;
  socket.once('data', () => {
    begunMs = monotonicMs();
  });
  socket.on('data', (received) => {
    isIntact &&= isPiece(received, bytes);
    bytes += received.length;
    const now = monotonicMs();
    if (now - reportedMs < REPORT_MS) return;
    reportedMs = now;
    tell({ kind: 'progress', bytes });
  });
  socket.on('error', fail);
  socket.on('end', () => {
    const seconds = (monotonicMs() - begunMs) / 1000;
    socket.end();
    tell({ kind: 'received', bytes, seconds, isIntact }, () => process.exit(0));
  });
});
server.on('error', fail);
server.listen(Number(port), ip, () => tell({ kind: 'listening' }));
