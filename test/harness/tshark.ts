/** What tshark makes of frames, for tests that want somebody else's opinion. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { bigEndian, concat } from '../reference/frames.js';

const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
const HEALTH = ['_ws.malformed', 'ip.checksum.status', 'udp.checksum.status', 'icmpv6.checksum.status'];

/** A capture file of the frames (the classic format of libpcap, link type Ethernet, big endian). */
function capture(frames: readonly Uint8Array[]): Uint8Array {
  const header = concat(
    bigEndian(0xa1b2c3d4, 4),
    Uint8Array.of(0, 2, 0, 4),
    bigEndian(0, 8),
    bigEndian(65535, 4),
  );
  const records = frames.flatMap((frame, i) => [
    concat(bigEndian(i, 4), bigEndian(0, 4), bigEndian(frame.length, 4), bigEndian(frame.length, 4)),
    frame,
  ]);
  return Buffer.concat([header, bigEndian(1, 4), ...records]);
}

/**
 * What tshark says of each frame: fields with bars between them, the values of one that is there several times with `+`. It
 * finds none malformed and no checksum bad, of IPv4, UDP and ICMPv6, however deep.
 */
export function dissected(frames: readonly Uint8Array[], fields: readonly string[]): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'dissect-'));
  try {
    const file = join(folder, 'frames.pcap');
    writeFileSync(file, capture(frames));
    const { status, stdout, stderr } = spawnSync(
      'tshark',
      [
        ...['-n', '-r', file, '-o', 'ip.check_checksum:TRUE', '-o', 'udp.check_checksum:TRUE'],
        ...['-T', 'fields', '-E', 'separator=|', '-E', 'occurrence=a', '-E', 'aggregator=+'],
        ...[...HEALTH, ...fields].flatMap((field) => ['-e', field]),
      ],
      { encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX },
    );
    assert.is(status, 0, stderr);
    const rows = stdout.trimEnd().split('\n');
    assert.is(rows.length, frames.length);
    return rows.map((row, i) => {
      const [malformed, ...values] = row.split('|');
      assert.is(malformed, '', `frame ${i}`);
      for (const checksum of values.slice(0, HEALTH.length - 1)) {
        assert.match(checksum!, /^(1(\+1)*)?$/, `frame ${i}`);
      }
      return values.slice(HEALTH.length - 1).join('|');
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
