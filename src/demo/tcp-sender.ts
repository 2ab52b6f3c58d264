/**
 * Sending end of a TCP transfer, in a process in its host's namespace.
 * `tcp-sender.js <ip> <port> <bytes>`
 */
import { connect } from 'node:net';
import { PIECE_BYTES_MAX, piece } from './pattern.js';
import type { TransferMessage } from './transfer.js';

const [ip = '', port = '', total = ''] = process.argv.slice(2);
const totalBytes = Number(total);
// The demo is gone: nobody wants this transfer.
process.on('disconnect', () => process.exit(1));

const socket = connect({ host: ip, port: Number(port) });
let sentBytes = 0;

/** Writes until the socket has enough for now, and ends it behind the last byte. */
function send(): void {
  while (sentBytes < totalBytes) {
    const bytes = piece(sentBytes, Math.min(PIECE_BYTES_MAX, totalBytes - sentBytes));
    sentBytes += bytes.length;
    if (!socket.write(bytes)) return;
  }
  socket.end();
}

socket.on('connect', send);
socket.on('drain', send);
socket.resume();
socket.on('error', (error) => {
  const message: TransferMessage = { kind: 'failed', reason: `sender: ${error.message}` };
  process.send?.(message, () => process.exit(1));
});
socket.on('close', () => process.exit(0));
