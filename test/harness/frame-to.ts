/** Numbered frames, to tell one from another when they arrive. */
import * as frames from '../reference/frames.js';

/** A UDP frame to a MAC address, with a number in its payload. */
export function frameTo(mac: string, number: number, payloadBytes = 64): Uint8Array {
  const payload = new Uint8Array(payloadBytes);
  new DataView(payload.buffer).setUint32(0, number);
  const datagram = frames.udp({ ends: frames.ENDS_4, sourcePort: 4000, payload });
  const frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: datagram }));
  frame.set(Buffer.from(mac.replaceAll(':', ''), 'hex'));
  return frame;
}

/** The number of such a frame. */
export function numberOf(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint32(42);
}
