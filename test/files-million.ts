/** `files`: a million mappings. What it takes is printed; asserted is that the answers are right. */
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { formatMac } from '../src/target/mac.js';
import { files } from '../src/varpd/files.js';
import type { LookupRequest, LookupServices } from '../src/varpd/plugin.js';
import { Xorshift } from './harness/xorshift.js';

const million = suite('files: a million mappings');
const MAPPINGS = 1_000_000;
const VTEPS = 2000;

const macOf = (index: number): string => formatMac(0x020820000000 + index * 16);
const vtepOf = (index: number): { ip: string; port: number } => {
  const vtep = index % VTEPS;
  const ip = vtep % 2 ? `2001:db8::${vtep.toString(16)}` : `192.0.${vtep >> 8}.${vtep & 255}`;
  return { ip, port: 4789 };
};
const arpOf = (index: number): string => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
const ndpOf = (index: number): string => `fd00::1:${(index >> 16) + 1}:${(index & 0xffff).toString(16)}`;

async function writeMappings(path: string): Promise<void> {
  const file = createWriteStream(path);
  file.write('{\n');
  for (let from = 0; from < MAPPINGS; from += 1000) {
    let chunk = '';
    for (let index = from; index < from + 1000; index++) {
      const { ip, port } = vtepOf(index);
      const rest = `"arp": "${arpOf(index)}", "ndp": "${ndpOf(index)}", "dhcp-proxy": "${macOf(index ^ 1)}"`;
      const comma = index === MAPPINGS - 1 ? '' : ',';
      chunk += `  "${macOf(index)}": {"ip": "${ip}", "port": ${port}, ${rest}}${comma}\n`;
    }
    if (!file.write(chunk)) await new Promise<void>((resolve) => file.once('drain', () => resolve()));
  }
  file.end('}\n');
  await finished(file);
}

/** Of the process, with what is not in use given back. */
async function rssMb(): Promise<number> {
  globalThis.gc?.();
  await new Promise((resolve) => setTimeout(resolve, 100));
  globalThis.gc?.();
  return Math.round(process.memoryUsage().rss / 1e6);
}

million('loaded with progress, and any of them answers', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'files-million-'));
  const path = join(folder, 'overlay.json');
  const instance = files.create(6);
  const logs: string[] = [];
  try {
    await writeMappings(path);
    instance.properties.set('files/config', path);
    const services = { log: (_: string, message: string) => logs.push(message) } as unknown as LookupServices;
    const before = await rssMb();
    const begun = performance.now();
    let turns = 0;
    let isLoading = true;
    const count = (): void => {
      turns++;
      if (isLoading) setImmediate(count);
    };
    count();
    await instance.start(services);
    isLoading = false;
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    const after = await rssMb();
    console.log(`  loaded in ${seconds} s, ${turns} turns of the event loop, RSS ${before} to ${after} MB`);
    assert.ok(turns > 50, 'the event loop went on');
    assert.match(logs.at(-1)!, /: 1000000 mappings to 2000 VTEPs in /);
    for (const line of logs.slice(0, -1)) assert.match(line, /: (reading|indexing) the mappings, \d+% done$/);
    assert.is(instance.peers!()!.length, VTEPS);
    const random = new Xorshift(1);
    const request = { etherType: 0x0800, source: macOf(0), kind: 'unicast' } as LookupRequest;
    for (let turn = 0; turn < 20_000; turn++) {
      const index = random.below(MAPPINGS);
      assert.equal(instance.lookup!({ ...request, destination: macOf(index) }), vtepOf(index));
      assert.is(
        instance.lookup!({ ...request, destination: formatMac(0x020820000001 + index * 16) }),
        'unknown',
      );
      assert.is(instance.arp!({ family: 4, ip: arpOf(index), request }), macOf(index));
      assert.is(instance.arp!({ family: 6, ip: ndpOf(index), request }), macOf(index));
      assert.is(instance.dhcp!({ ...request, source: macOf(index) }), macOf(index ^ 1));
    }
  } finally {
    await instance.stop();
    rmSync(folder, { recursive: true });
  }
});

million.run();
