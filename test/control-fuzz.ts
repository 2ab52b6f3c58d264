/** 200,000 messages that no good client would send: every answer is one that is known, and nothing is left of them. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const fuzz = suite('control fuzz');
const FUZZER = join(import.meta.dirname, 'harness/control-fuzzer.js');
const MESSAGES = 200_000;
/** Servers, each with its clients in a process of its own. */
const SHARDS = 2;
const SEED = 20_261_123;

/** What the server may answer with; anything else is an unknown error. */
const documented: readonly string[] = [
  'ok',
  'E2BIG count_too_big',
  'EAGAIN not_associated',
  'EAGAIN property_missing',
  'EAGAIN too_many_connections',
  'EAGAIN too_many_readers',
  'EBADF handle_read_only',
  'EBADF no_such_handle',
  'EBUSY links_on_top',
  'EBUSY link_up',
  'EEXIST already_active',
  'EEXIST associated',
  'EEXIST device_exists',
  'EEXIST mux_other_sockets',
  'EEXIST vnetid_in_use',
  'EINVAL bad_address',
  'EINVAL bad_count',
  'EINVAL bad_destination',
  'EINVAL other_family',
  'EINVAL bad_device_name',
  'EINVAL bad_encap_name',
  'EINVAL bad_frame',
  'EINVAL bad_mac',
  'EINVAL bad_netns',
  'EINVAL bad_property_id',
  'EINVAL bad_property_value',
  'EINVAL bad_provides',
  'EINVAL bad_request',
  'EINVAL property_missing',
  'EINVAL request_not_outstanding',
  'EINVAL source_ports_few',
  'ENODEV no_such_link',
  'ENOENT no_such_device',
  'ENOENT no_such_encap',
  'ENOENT no_such_lookup',
  'ENOENT no_such_operation',
  'ENOENT no_such_property',
  'ENOENT no_such_target',
  'ENOENT no_such_vnic',
  'ENOENT request_not_outstanding',
  'ENOMEM pool_full',
  'ENOSPC cache_full',
  'ENOTSUP already_active',
  'ENOTSUP memory_port',
  'ENOTSUP not_dynamic',
  'ENOTSUP not_external',
  'ENOTTY no_such_call',
  'ENXIO not_associated',
  'EPERM property_read_only',
  'ETIME no_request',
];

async function shard(index: number): Promise<Record<string, number>> {
  const child = spawn(
    process.execPath,
    ['--stack-trace-limit=0', FUZZER, `${MESSAGES / SHARDS}`, `${SEED + index * 100_000}`],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    output += part;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  assert.is(code, 0, `shard ${index} ended well: ${output}`);
  return JSON.parse(output);
}

fuzz(
  `${MESSAGES.toLocaleString('en')} messages: no unknown error, others are served, nothing is left`,
  async () => {
    const counts = await Promise.all(Array.from({ length: SHARDS }, (_, index) => shard(index)));
    const all = counts.flatMap((each) => Object.entries(each));
    const unknown = all.filter(([code]) => !documented.includes(code));
    assert.equal(unknown, [], 'unknown errors');
    const total = all.reduce((sum, [, count]) => sum + count, 0);
    // What is not even HTTP may be answered by the connection's end alone.
    assert.ok(total > MESSAGES * 0.99, `${total} answers`);
    const good = all.reduce((sum, [code, count]) => sum + (code === 'ok' ? count : 0), 0);
    assert.ok(good > MESSAGES / 100, `${good} were good`);
    assert.ok(new Set(all.map(([code]) => code)).size > 20, 'most of what can go wrong did');
  },
);

fuzz.run();
