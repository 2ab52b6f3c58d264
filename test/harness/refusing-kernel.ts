/** A kernel of which nothing is asked: base of those that answer some calls, for workers without threads and descriptors. */
import type { Kernel } from '../../workers/kernel.js';

export class RefusingKernel implements Kernel {
  read(_fd: number, _address: number, _bytes: number): number {
    throw new Error('nothing is read from a link here');
  }

  write(_fd: number, _address: number, _bytes: number): number {
    throw new Error('nothing is written here');
  }

  writev(_fd: number, _iovecs: number, _count: number): number {
    throw new Error('nothing is written in parts here');
  }

  recvmmsg(_fd: number, _messages: number, _count: number): number {
    throw new Error('nothing is received here');
  }

  sendmmsg(_fd: number, _messages: number, _count: number): number {
    throw new Error('nothing is sent here');
  }

  epollWait(): number {
    throw new Error('nobody waits here');
  }

  giveWay(): void {}

  errno(): number {
    throw new Error('nothing fails here');
  }
}
