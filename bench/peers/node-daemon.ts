/**
 * What one writes by hand in Node: a TAP by `fs`, UDP by `dgram`, a VXLAN header of eight bytes. A program of its own;
 * it does without everything that the project has for speed, and is not to be tuned.
 *
 *   node node-daemon.js LINK LOCAL_IP REMOTE_IP VNI
 */
import { createSocket } from 'node:dgram';
import { closeSync, constants, openSync, read, writeSync } from 'node:fs';
import koffi from 'koffi';

const PORT = 4789;
const HEADER_BYTES = 8;
const FRAME_BYTES_MAX = 9300;
const BUFFER_BYTES = 4 << 20;
// linux/if_tun.h and linux/if.h
const TUNSETIFF = 0x400454ca;
const IFF_TAP = 2;
const IFF_NO_PI = 0x1000;
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;

const [link = '', local = '', remote = '', number = ''] = process.argv.slice(2);
const vni = Number(number);

function openTap(name: string): number {
  const tap = openSync('/dev/net/tun', constants.O_RDWR);
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name);
  request.writeUInt16LE(IFF_TAP | IFF_NO_PI, IFNAMSIZ);
  const ioctl = koffi.load(null).func('int ioctl(int fd, ulong request, void *argument)');
  if (ioctl(tap, TUNSETIFF, request) < 0) {
    closeSync(tap);
    throw new Error(`no TAP ${name}`);
  }
  return tap;
}

const tap = openTap(link);
const header = Buffer.alloc(HEADER_BYTES);
header[0] = 0x08;
header.writeUIntBE(vni, 4, 3);
const socket = createSocket('udp4');

function transmit(): void {
  const buffer = Buffer.allocUnsafe(HEADER_BYTES + FRAME_BYTES_MAX);
  read(tap, buffer, HEADER_BYTES, FRAME_BYTES_MAX, null, (error, bytes) => {
    if (!error && bytes > 0) {
      header.copy(buffer);
      socket.send(buffer, 0, HEADER_BYTES + bytes);
    }
    transmit();
  });
}

socket.on('error', () => {});
socket.on('message', (message) => {
  if (message.length <= HEADER_BYTES || message[0] !== 0x08 || message.readUIntBE(4, 3) !== vni) return;
  try {
    writeSync(tap, message, HEADER_BYTES);
  } catch {
    // The link is down: the frame is lost, as on a wire.
  }
});
socket.bind(PORT, local, () => {
  socket.setRecvBufferSize(BUFFER_BYTES);
  socket.setSendBufferSize(BUFFER_BYTES);
  socket.connect(PORT, remote, transmit);
});
