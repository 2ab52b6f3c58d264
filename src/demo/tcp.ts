/** A TCP transfer between two namespaces, by two processes of our own. */
import type { ChildProcess } from 'node:child_process';
import { monotonicMs } from '../sys/clock.js';
import { howEnded, startNode } from './child.js';
import type { Cleanup } from './cleanup.js';
import { TCP_RECEIVER, TCP_SENDER } from './programs.js';
import { STALL_MS_MAX, type TransferMessage, type TransferResult, transferMsMax } from './transfer.js';

const PORT = 5201;
const LOOK_MS = 250;

export interface TcpOptions {
  readonly fromNamespace: number;
  readonly toNamespace: number;
  readonly toIp: string;
  readonly bytes: number;
  readonly onProgress: (bytes: number) => void;
}

/** Transfers; rejects when either end fails, or when nothing arrives for STALL_MS_MAX. */
export function transferTcp(cleanup: Cleanup, options: TcpOptions): Promise<TransferResult> {
  const { fromNamespace, toNamespace, toIp, bytes, onProgress } = options;
  const to = [toIp, `${PORT}`];
  const receiver = startNode(cleanup, TCP_RECEIVER, to, { namespace: toNamespace, hasChannel: true });
  let sender: ChildProcess | undefined;
  return new Promise<TransferResult>((resolve, reject) => {
    const deadline = monotonicMs() + transferMsMax(bytes);
    let movedMs = monotonicMs();
    const watch = setInterval(() => {
      const now = monotonicMs();
      if (now > deadline) finish(() => reject(new Error('the transfer took too long')));
      if (now - movedMs > STALL_MS_MAX) {
        finish(() => reject(new Error(`nothing arrived for ${STALL_MS_MAX / 1000} s`)));
      }
    }, LOOK_MS);
    const finish = (tell: () => void) => {
      clearInterval(watch);
      // A sender in the middle of a transfer that has failed would go on trying.
      for (const child of [receiver, sender]) child?.kill('SIGTERM');
      tell();
    };
    const onMessage = (raw: unknown) => {
      const message = raw as TransferMessage;
      if (message.kind === 'failed') finish(() => reject(new Error(message.reason)));
      else if (message.kind === 'received') finish(() => resolve(message));
      else if (message.kind === 'progress') {
        movedMs = monotonicMs();
        onProgress(message.bytes);
      } else {
        try {
          sender = startNode(cleanup, TCP_SENDER, [...to, `${bytes}`], {
            namespace: fromNamespace,
            hasChannel: true,
          });
          sender.on('message', onMessage);
        } catch (error) {
          finish(() => reject(error as Error));
        }
      }
    };
    receiver.on('message', onMessage);
    // Its last message may still be on the way.
    receiver.once('close', () => {
      setTimeout(() => finish(() => reject(new Error(`the receiver ended: ${howEnded(receiver)}`))), LOOK_MS);
    });
  });
}
