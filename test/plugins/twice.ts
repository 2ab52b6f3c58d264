/**
 * Answers twice, and makes up answers to calls that were never made. No plugin can without misusing Node: it posts on
 * the worker's own channel, and then has every channel of its thread send all things twice.
 */
import { MessagePort, parentPort } from 'node:worker_threads';
import { dynamic } from './make.js';

const post = MessagePort.prototype.postMessage;

export const plugin = dynamic('twice', (at) => ({
  lookup: () => {
    for (let call = 0; call < 100; call++) parentPort?.postMessage({ kind: 'answer', call, value: 'drop' });
    if (at() === 'services') {
      MessagePort.prototype.postMessage = function (message: unknown) {
        MessagePort.prototype.postMessage = post;
        const calls = Array.from({ length: 256 }, () => ({ what: 'invalidate', mac: '02:00:00:00:00:01' }));
        for (let sent = 0; sent < 1000; sent++)
          post.call(this, { kind: 'services', session: 1, calls, dropped: 0 });
        post.call(this, message);
      };
    }
    if (at() !== 'raw') return 'unknown';
    MessagePort.prototype.postMessage = function (message: unknown) {
      MessagePort.prototype.postMessage = post;
      const answer = message as { call: number };
      post.call(this, message);
      post.call(this, { ...answer, value: 'drop' });
      post.call(this, { ...answer, call: answer.call + 1_000_000 });
      post.call(this, { ...answer, call: 'seven' });
      for (const odd of [
        null,
        7,
        {},
        { kind: 'nonsense' },
        { kind: 'services', session: 1, calls: 'many' },
      ]) {
        post.call(this, odd);
      }
      const calls = [
        null,
        {},
        { what: 'set', mac: 7 },
        { what: 'set', mac: 'x', route: 'drop' },
        { what: 'end' },
      ];
      post.call(this, { kind: 'services', session: 1, calls, dropped: 0 });
      post.call(this, { kind: 'services', session: 999, calls: [{ what: 'invalidateAll' }], dropped: 0 });
      post.call(this, { kind: 'declared', declaration: {} });
      post.call(this, { kind: 'printed', lines: ['x'.repeat(5000)], dropped: 0 });
    };
    return 'unknown';
  },
  dhcp: () => {
    // A lie that the thread did not see.
    MessagePort.prototype.postMessage = function (message: unknown) {
      MessagePort.prototype.postMessage = post;
      post.call(this, { ...(message as object), value: { spread: 'everywhere' } });
    };
    return undefined;
  },
  arp: () => {
    MessagePort.prototype.postMessage = function () {
      for (let sent = 0; sent < 2_000_000; sent++) post.call(this, { kind: 'pong', usedBytes: 0 });
    };
    return undefined;
  },
}));
